"""Budgets: how fast each grant may be used, and what its user is told of it.

The generic cell rate algorithm (ITU-T I.371): after a pause a burst at once, then one exchange every interval, and
never more in any stretch of time. Counted in whole parts of a nanosecond, so that nothing drifts. A node that is alone
counts for itself and a restart forgets: a budget protects systems from haste, it proves nothing. Gateways beside each
other draw from what they share (``gsb.shares.budgets``), and count here what they know of it.

The fields are those of draft-ietf-httpapi-ratelimit-headers-11, with one policy. ``q`` in ``w`` seconds is what the
grant bears without end: whoever never uses more in any stretch of ``w`` seconds is never refused. ``r`` could be used
at once, and before ``t`` seconds are over there will be no more. Everything is rounded so that less is promised.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from functools import lru_cache

from gsb.config import Rate
from gsb.errors import RateExceeded
from gsb.policy import Grant

_NANOSECONDS = 1_000_000_000
POLICY = "burst"
"""The name of the one policy, in the fields and in the problem."""


@dataclass(frozen=True, slots=True)
class _Pace:
    """A rate in whole numbers of 1 / per_minute nanoseconds, of which the interval between exchanges is one."""

    second: int
    interval: int
    slack: int
    """By how much an exchange may come before its time."""
    policy: str
    """The field ``RateLimit-Policy``."""


@lru_cache(maxsize=4096)
def _pace(rate: Rate) -> _Pace:
    interval = 60 * _NANOSECONDS
    window = -(-60 * rate.burst // rate.per_minute)
    return _Pace(
        second=rate.per_minute * _NANOSECONDS,
        interval=interval,
        slack=interval * (rate.burst - 1),
        policy=f'"{POLICY}";q={rate.burst};w={window}',
    )


class Budgets:
    """What each grant has used. Not for several threads at once."""

    def __init__(self) -> None:
        self._next: dict[tuple[str, str, str, str, Rate], int] = {}
        """Per budget the time at which it would be unused again, in its pace's unit."""

    def take(self, grant: Grant, now: float) -> Awaitable[None] | None:
        """Use the grant once at ``now`` (seconds). Raises RateExceeded with the fields and, in seconds, Retry-After;
        or answers what will, where other nodes have a part in it."""
        if grant.rate is not None:
            at, ahead = self.room(grant, grant.rate, now)
            self._next[_key(grant, grant.rate)] = at + ahead + _pace(grant.rate).interval
        return None

    def room(self, grant: Grant, rate: Rate, now: float) -> tuple[int, int]:
        """The time, and how far the use of the grant is ahead of it. Raises RateExceeded if that is too far."""
        pace = _pace(rate)
        at, ahead = self._ahead(grant, rate, pace, now)
        if ahead > pace.slack:
            raise self.refusal(grant, rate, now)
        return at, ahead

    def refusal(self, grant: Grant, rate: Rate, now: float) -> RateExceeded:
        """What is said to whom the grant has nothing left for: when to ask again, and the fields."""
        pace = _pace(rate)
        _, ahead = self._ahead(grant, rate, pace, now)
        wait = max(-((pace.slack - ahead) // pace.second), 1)
        return RateExceeded(
            headers={"Retry-After": str(wait), **self.fields(grant, now)},
            extra={"agreement": grant.agreement, "violated-policies": [POLICY]},
        )

    def learn(self, grant: Grant, rate: Rate, ahead: float, now: float) -> None:
        """At ``now`` the use of the grant, by whomever, is so many seconds ahead of time."""
        pace = _pace(rate)
        at, most = round(now * _NANOSECONDS) * rate.per_minute, pace.slack + pace.interval
        self._next[_key(grant, rate)] = at + min(round(ahead * pace.second), most)

    def fields(self, grant: Grant, now: float) -> dict[str, str]:
        """``RateLimit-Policy`` and ``RateLimit`` as they are at ``now``; none for a grant without a rate."""
        if grant.rate is None:
            return {}
        pace = _pace(grant.rate)
        _, ahead = self._ahead(grant, grant.rate, pace, now)
        left = max(0, (pace.slack - ahead) // pace.interval + 1)
        more = ahead + left * pace.interval - pace.slack
        window = -(-more // pace.second)
        return {"RateLimit-Policy": pace.policy, "RateLimit": f'"{POLICY}";r={left};t={window}'}

    def _ahead(self, grant: Grant, rate: Rate, pace: _Pace, now: float) -> tuple[int, int]:
        """The time, and how far the use of the grant is ahead of it."""
        at = round(now * _NANOSECONDS) * rate.per_minute
        ahead = max(self._next.get(_key(grant, rate), at) - at, 0)
        # No run of use leads further ahead than this: the clock was set back, and nobody shall wait for it to catch up.
        return at, (ahead if ahead <= pace.slack + pace.interval else 0)


def _key(grant: Grant, rate: Rate) -> tuple[str, str, str, str, Rate]:
    return grant.consumer, grant.service, grant.purpose, grant.agreement, rate
