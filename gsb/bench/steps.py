"""Where the time of an exchange goes: the node with a stop-watch around each numbered step, in the benchmark's process.

The product has no hooks for this: the functions that are the steps are replaced, by name, before the node starts. A
step's own time is what it holds the event loop for, without the steps inside it and without what it waits for; its
way is the time from its begin to its end, waiting included. Run as a module it serves until SIGTERM and then prints
the table. The stop-watches cost a few microseconds each, so only the proportions mean something.
"""

from __future__ import annotations

import asyncio
import inspect
import signal
import sys
from collections.abc import Callable, Coroutine, Generator, Iterable
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from time import perf_counter
from typing import Any

import uvloop

from gsb import admit, handout, jws, node, perform, workers
from gsb.limits import Budgets
from gsb.policy import Policy
from gsb.runtime import Runtime
from gsb.store.sqlite import SqliteStore
from gsb.telemetry import log_to_stderr
from gsb.web import app, server

STEPS: tuple[tuple[str, Any, str], ...] = (
    ("edge: all of a call", app.Edge, "handle"),
    ("edge: read", app, "read_call"),
    ("admit", app.API[0], "endpoint"),
    ("admit 1 size and shape", admit, "size_and_shape"),
    ("admit 2 who signed", admit, "authenticate"),
    ("admit 3 bound to this request", jws, "bind"),
    ("admit 4 fingerprint", admit, "fingerprint_of"),
    ("admit 4 seen before", SqliteStore, "look"),
    ("admit 6 granted", Policy, "decide"),
    ("admit 7 rate", Budgets, "take"),
    ("admit 8 request schema", admit, "request_fits"),
    ("admit 9 what is accepted", admit, "new_exchange"),
    ("admit 9 accept", SqliteStore, "accept"),
    ("admit 10 dispatch and wait", admit, "answer"),
    ("admit 10 hand out", handout, "outcome"),
    ("perform", workers, "perform"),
    ("perform 1 begin", SqliteStore, "begin"),
    ("perform 2 adapter", Runtime, "call"),
    ("perform 3, 4 schema, fields", perform, "after_reply"),
    ("perform 5 entry", perform, "outcome_entry"),
    ("perform 5 finish", SqliteStore, "finish"),
    ("perform 5 log", perform, "tell"),
    ("edge: sign", app.Edge, "_signature"),
    ("edge: respond", server.Said, "prepare"),
)
"""What the table calls a step, where its function is found when it is called, and under which name."""
TASKS = ("edge: all of a call", "perform")
"""Of these every exchange has one."""


@dataclass(slots=True)
class Step:
    """What was measured of one step, in seconds."""

    calls: int = 0
    own: float = 0.0
    way: float = 0.0


class _Pieces(Generator[Any, Any, Any]):
    """A coroutine, to be awaited, of which every piece that the event loop runs goes through ``measured``."""

    def __init__(self, measured: Callable[..., Any], work: Coroutine[Any, Any, Any]) -> None:
        self._measured, self._work = measured, work

    def __await__(self) -> Generator[Any, Any, Any]:
        return self

    def send(self, value: Any) -> Any:
        return self._measured(self._work.send, value)

    def throw(self, *error: Any) -> Any:
        return self._measured(self._work.throw, *error)


class Watch:
    """Stop-watches that know of each other, so that no time is counted twice."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self.steps: dict[str, Step] = {}
        self._clock = clock
        self._inner = [0.0]
        """Time already counted inside each of the pieces that are running now."""

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, measured; a coroutine function in each of the pieces in which the event loop runs it."""
        step = self.steps.setdefault(name, Step())

        @wraps(function)
        def plain(*arguments: Any, **named: Any) -> Any:
            began = self._clock()
            try:
                return self._piece(step, function, *arguments, **named)
            finally:
                step.calls += 1
                step.way += self._clock() - began

        @wraps(function)
        async def stepwise(*arguments: Any, **named: Any) -> Any:
            began = self._clock()
            try:
                return await _Pieces(partial(self._piece, step), function(*arguments, **named))
            finally:
                step.calls += 1
                step.way += self._clock() - began

        return stepwise if inspect.iscoroutinefunction(function) else plain

    def _piece(self, step: Step, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        began = self._clock()
        self._inner.append(0.0)
        try:
            return work(*arguments, **named)
        finally:
            taken = self._clock() - began
            step.own += taken - self._inner.pop()
            self._inner[-1] += taken

    def table(self) -> str:
        """One line for each step, in microseconds for one exchange."""
        exchanges = max(1, *(self.steps[task].calls for task in TASKS if task in self.steps))
        lines = [f"{'microseconds of each exchange':32}{'own':>8}{'way':>10}"]
        for name, step in self.steps.items():
            own, way = (value / exchanges * 1e6 for value in (step.own, step.way))
            lines.append(f"{name:32}{own:>8.1f}{way:>10.1f}")
        own = sum(step.own for step in self.steps.values()) / exchanges * 1e6
        return "\n".join([*lines, f"{'all steps':32}{own:>8.1f}"])


def watch_the_steps(steps: Iterable[tuple[str, Any, str]] = STEPS) -> Watch:
    """Replace every step by its measured self."""
    watch = Watch()
    for name, owner, attribute in steps:
        measured = watch.around(name, getattr(owner, attribute))
        if isinstance(owner, app.Route):
            # Routes are frozen values; the table of routes names the step.
            object.__setattr__(owner, attribute, measured)
        else:
            setattr(owner, attribute, measured)
    return watch


async def serve(folder: Path) -> None:
    """Run the node until SIGTERM."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    await node.run(node.Node(folder), told.wait())


if __name__ == "__main__":
    log_to_stderr()
    found = watch_the_steps()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Path(sys.argv[1])))
    print(found.table())
