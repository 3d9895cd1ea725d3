"""What a broker promises: little. At least once, may lose, in no order; the sweeper and ``begin`` make up for it.

Messages are ids, never data: whoever reads the broker learns that something happened, and for whom, but not what.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from typing import NamedTuple, Protocol


class BrokerUnfit(Exception):
    """What a broker is to be reached with cannot be used; the text says why."""


class Delivery(NamedTuple):
    """One piece of work. ``done`` is called once it needs no redelivery, whatever its outcome."""

    system: str
    exchange: str
    agency: str
    done: Callable[[], None]
    trace: str | None = None
    """The traceparent of the message that brought it."""


class Broker(Protocol):
    async def open(self) -> None: ...

    async def close(self) -> None:
        """Ends every iterator of ``deliveries``; what was not delivered is left to the sweeper."""

    async def dispatch(self, system: str, exchange: str, agency: str) -> None:
        """Ask some worker of the system to perform the exchange. Never waits for one; never raises for lack of one.

        Within a system agencies take turns: what one of them has piled up does not stand before another's.
        """

    def deliveries(self, systems: Collection[str]) -> AsyncIterator[Delivery]:
        """Work for these systems, until the broker closes."""

    def reached(self) -> bool:
        """Whether work can be had and said now, as far as is known."""

    async def wake(self, exchange: str) -> None:
        """Tell whoever waits for the exchange that it has changed."""

    def on_wake(self, callback: Callable[[str], None]) -> None:
        """Have the callback called, in the event loop, with the id of every exchange that was woken."""
