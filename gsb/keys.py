"""The key registry: whose key a signature names and whether it counts now; and the bus's own keys.

Frozen look-ups made from a checked configuration; no files are read here and nothing is decided about rights.
Agencies and operators share one space of ids, so an owner is one string.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from gsb.config import KeyFile
from gsb.errors import KeyNotActive, KeyRevoked, KeyUnknown, SigningUnavailable
from gsb.hsm import HsmKey
from gsb.jwk import PrivateKey, PublicKey

LINGER = 300.0
"""Seconds for which a key of the bus is published after its end: what it signed last is still on its way, and clocks of
nodes differ."""


@dataclass(frozen=True, slots=True)
class Life:
    """When a key counts. Times are seconds since the epoch; None means that there is no such limit."""

    state: str
    since: float | None = None
    until: float | None = None

    @classmethod
    def of(cls, table: KeyFile) -> Life:
        return cls(
            table.state,
            table.since.timestamp() if table.since else None,
            table.until.timestamp() if table.until else None,
        )

    def revoked(self, now: float) -> bool:
        return self.state == "revoked" and (self.since is None or now >= self.since)

    def accepted(self, now: float) -> bool:
        """Whether a signature of this moment counts. A revocation that lies ahead does not weaken it yet."""
        if self.state == "announced" or (self.until is not None and now >= self.until):
            return False
        begun = self.since is None or now >= self.since
        return not begun if self.state == "revoked" else begun

    def over(self, now: float) -> bool:
        return self.until is not None and now >= self.until

    def published(self, now: float) -> bool:
        """Whether others should know the key: announced ones too, revoked ones and those long over no more."""
        return not self.revoked(now) and not self.over(now - LINGER)


class Registry:
    """The public keys of agencies and operators, by owner and kid."""

    def __init__(self, keys: Iterable[tuple[str, PublicKey, Life]]) -> None:
        self._keys: Mapping[tuple[str, str], tuple[PublicKey, Life]] = MappingProxyType(
            {(owner, key.kid): (key, life) for owner, key, life in keys}
        )

    def find(self, owner: str, kid: str, now: float) -> PublicKey:
        """The key, if signatures with it count now. Raises KeyUnknown, KeyRevoked or KeyNotActive."""
        found = self._keys.get((owner, kid))
        if found is None:
            raise KeyUnknown
        key, life = found
        if life.accepted(now):
            return key
        raise KeyRevoked if life.revoked(now) else KeyNotActive

    def __iter__(self) -> Iterator[tuple[str, PublicKey, Life]]:
        """Owner, key and life of each."""
        return ((owner, key, life) for (owner, _), (key, life) in self._keys.items())

    def owner(self, kid: str) -> str | None:
        """Whose key it is, whether it counts or not; None when it is nobody's."""
        return next((owner for owner, each in self._keys if each == kid), None)

    def revoked(self, owner: str, kid: str, now: float) -> bool | None:
        """Whether the key is revoked; None when it is not known here, which proves neither."""
        found = self._keys.get((owner, kid))
        return None if found is None else found[1].revoked(now)


class BusKeys:
    """The bus's own keys: one signs, all that are announced, active or retiring are published."""

    def __init__(self, keys: Iterable[tuple[PrivateKey, Life]]) -> None:
        self._keys = tuple(keys)
        self._turns = sorted({at for _, life in self._keys for at in (life.since, life.until) if at is not None})
        """When there may be another key to sign with."""
        self._chosen: PrivateKey | None = None
        self._from, self._to = math.inf, -math.inf
        """Between which of them the choice was made."""

    def signing(self, now: float) -> PrivateKey:
        """The active key that has been in force longest. Raises SigningUnavailable, also while its HSM does not sign.

        The oldest, so that a new key is known to every caller before it signs anything.
        """
        if not self._from <= now < self._to:
            self._choose(now)
        if self._chosen is None or (isinstance(self._chosen, HsmKey) and self._chosen.away):
            raise SigningUnavailable
        return self._chosen

    async def sign(self, now: float, make: Callable[[PrivateKey], str]) -> str:
        """What ``make`` makes with the key to sign with. Raises SigningUnavailable."""
        key = self.signing(now)
        return await key.run(make) if isinstance(key, HsmKey) else make(key)

    def in_hsm(self, now: float) -> list[HsmKey]:
        """Those in an HSM that sign, or will."""
        return [key for key, life in self._keys if isinstance(key, HsmKey) and life.published(now)]

    def signs_until(self, now: float) -> float | None:
        """Until when one key or the other signs without a break: ``now`` if none does, infinite if one has no end; None
        when the bus has no keys."""
        until = now
        for _, life in sorted(self._keys, key=lambda each: each[1].since or 0.0):
            if life.state == "active" and (life.since or 0.0) <= until:
                until = max(until, math.inf if life.until is None else life.until)
        return until if self._keys else None

    def _choose(self, now: float) -> None:
        active = [(key, life) for key, life in self._keys if life.state == "active" and life.accepted(now)]
        self._chosen = min(active, key=lambda each: each[1].since or 0.0)[0] if active else None
        later = bisect_right(self._turns, now)
        self._from = self._turns[later - 1] if later else -math.inf
        self._to = self._turns[later] if later < len(self._turns) else math.inf

    def __iter__(self) -> Iterator[tuple[PublicKey, Life]]:
        return ((key.public, life) for key, life in self._keys)

    def revoked(self, kid: str, now: float) -> bool:
        return any(key.kid == kid and life.revoked(now) for key, life in self._keys)

    @property
    def public(self) -> Mapping[str, PublicKey]:
        """All of them by kid, whatever their state."""
        return {key.kid: key.public for key, _ in self._keys}

    def jwks(self, now: float) -> dict[str, Any]:
        """The public keys as a JWK Set (RFC 7517, section 5)."""
        return {"keys": [dict(key.public.jwk) for key, life in self._keys if life.published(now)]}
