"""The roles that a node plays: gateway, worker and recorder, all three by default, for every system.

A gateway admits, hands out and sweeps; a worker performs; a recorder keeps the evidence log. Which combinations would
lose work is decided here, before anything is opened. A crash is a defect of this module.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from gsb.backends import LocalTable, SqliteTable
from gsb.catalogue import Catalogue
from gsb.load import suggest


class Role(StrEnum):
    """What one node may do for the bus."""

    GATEWAY = "gateway"
    WORKER = "worker"
    RECORDER = "recorder"


class RolesUnfit(Exception):
    """Roles that a node cannot play on what its deployment stands on, and why, in one line."""


@dataclass(frozen=True, slots=True)
class Roles:
    """What one node does. ``systems``: for which core systems it works; None for all, those of a reload too."""

    played: frozenset[Role] = frozenset(Role)
    systems: frozenset[str] | None = None

    @classmethod
    def of(cls, played: Collection[Role], systems: Collection[str]) -> Roles:
        """Those that are named; where none is, all."""
        return cls(frozenset(played or Role), frozenset(systems) if systems else None)

    def __contains__(self, role: Role) -> bool:
        return role in self.played

    def works_for(self, system: str) -> bool:
        """Whether this node calls that core system."""
        return Role.WORKER in self.played and (self.systems is None or system in self.systems)

    def check(self, catalogue: Catalogue) -> None:
        """Raises RolesUnfit where some work would be nobody's."""
        if self != ALL:
            store, broker = catalogue.gsb.store, catalogue.gsb.broker
            if isinstance(store, SqliteTable):
                raise RolesUnfit(f'with store.kind = "{store.kind}" one node plays every role for every system')
            if isinstance(broker, LocalTable):
                raise RolesUnfit(
                    f'with broker.kind = "{broker.kind}" work stays in its process, so each node plays every role for '
                    "every system"
                )
        if self.systems is None:
            return
        if Role.WORKER not in self.played:
            raise RolesUnfit("only a worker works for some systems: give it the role worker, or no system")
        for unknown in sorted(self.systems - catalogue.systems.keys()):
            raise RolesUnfit(f"there is no system {unknown!r}{suggest(unknown, catalogue.systems)}")


ALL = Roles()
