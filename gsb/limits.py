"""Budgets: how fast each grant may be used.

The generic cell rate algorithm (ITU-T I.371): after a pause a burst at once, then one exchange every interval, and
never more in any stretch of time. Counted in whole parts of a nanosecond, so that nothing drifts. Each node counts for
itself and a restart forgets: a budget protects systems from haste, it proves nothing.
"""

from __future__ import annotations

from gsb.errors import RateExceeded
from gsb.policy import Grant

_NANOSECONDS = 1_000_000_000


class Budgets:
    """What each grant has used. Not for several threads at once."""

    def __init__(self) -> None:
        self._next: dict[tuple[str, ...], int] = {}
        """Per budget the time at which it would be unused again, in 1 / per_minute nanoseconds."""

    def take(self, grant: Grant, now: float) -> None:
        """Use the grant once at ``now`` (seconds). Raises RateExceeded with Retry-After in seconds, at least 1."""
        if grant.rate is None:
            return
        # One unit is 1 / per_minute nanoseconds, which makes the interval between exchanges a whole number of them.
        unit = grant.rate.per_minute
        interval = 60 * _NANOSECONDS
        slack = interval * (grant.rate.burst - 1)
        at = round(now * _NANOSECONDS) * unit
        budget = (grant.consumer, grant.service, grant.purpose, grant.agreement, str(unit), str(grant.rate.burst))
        due = max(self._next.get(budget, at), at)
        if due - at > slack + interval:
            due = at  # No run of use leads here: the clock was set back, and nobody shall wait for it to catch up.
        early = due - at - slack
        if early > 0:
            seconds = -(-early // (unit * _NANOSECONDS))
            raise RateExceeded(headers={"Retry-After": str(max(1, seconds))}, extra={"agreement": grant.agreement})
        self._next[budget] = due + interval
