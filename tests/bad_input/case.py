"""A case: one right call, what is spoilt in it, and what the bus must say to that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Literal

from gsb.errors import TABLE
from tests.bad_input.draft import Draft, Spoil

if TYPE_CHECKING:
    from tests.bad_input.stage import Stage

Way = Literal["missing", "type", "value", "duplicated", "right"]
WAYS: tuple[Way, ...] = ("missing", "type", "value", "duplicated")
"""The four ways in which a row of the profile can be wrong. ``right`` is a neighbour that must pass."""
Step = Callable[["Stage", Draft], Awaitable[None]]

ABOUT: dict[str, Any] = {"exchange": ..., "state": ..., "effect": ...}
"""Members with which a problem speaks of an exchange; their values are held to the signed claims' elsewhere."""
KNOWN_FROM = "method_mismatch"
"""The first problem in the table, which is in the order of the checks, that is said to a caller who is known."""


@dataclass(frozen=True)
class Case:
    """``row`` is the row of the profile, ``kind`` the call that is spoilt (see ``stage.KINDS``)."""

    row: str
    way: Way
    what: str
    spoil: Spoil
    code: str | None
    """The problem's code; None for a right answer."""
    kind: str = "write"
    status: int = 200
    """Of a right answer; a problem's follows from its code."""
    signed: bool | None = None
    """Whether the answer is signed, where that does not follow from the code's place in the table."""
    members: dict[str, Any] = field(default_factory=dict)
    """Members that the problem has beside the usual ones, with their values; ``...`` is any."""
    pointers: tuple[str, ...] | EllipsisType | None = None
    """The places that ``errors`` names, in any order; ``...``: any; None: it has no such member."""
    exchange: tuple[str, str | None] | None = None
    """State and effect of the exchange of which the reply's claims speak."""
    replayed: bool = False
    """Whether the answer is an earlier one, and says so."""
    before: Step | None = None
    after: Step | None = None

    @property
    def name(self) -> str:
        return f"{self.kind}: {self.row}: {self.way}: {self.what}"

    @property
    def known(self) -> bool:
        """Whether the bus knows by then who calls."""
        if self.signed is not None:
            return self.signed
        order = list(TABLE)
        return self.code is None or order.index(self.code) >= order.index(KNOWN_FROM)


def repeated(cases: Iterable[Case]) -> list[str]:
    """Names that stand more than once, which would hide one case behind another."""
    names = [case.name for case in cases]
    return sorted({name for name in names if names.count(name) > 1})
