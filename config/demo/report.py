"""What happened in the demonstration: steps that count their outcomes, and the tables that show them.

It decides only whether a step went as expected; it calls nothing. A crash loses the report, nothing else.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

PLAIN_WIDTH = 132
"""Columns where there is no terminal to ask."""


def console() -> Console:
    """Where everything is printed: coloured on a terminal, plain text of a fixed width elsewhere."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


@dataclass(slots=True)
class Step:
    """One kind of thing that was done, ``count`` times, each of which should come out as ``expected``."""

    title: str
    expected: str
    count: int = 1
    got: Counter[str] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    """Seconds of each call."""
    seconds: float = 0.0
    """Seconds from the first to the last."""
    chapter: str = ""
    """The heading under which it is shown."""

    @property
    def passed(self) -> bool:
        return self.got == Counter({self.expected: self.count})

    @contextmanager
    def running(self) -> Iterator[Step]:
        """Measures the whole step."""
        began = time.perf_counter()
        try:
            yield self
        finally:
            self.seconds += time.perf_counter() - began

    def took(self, began: float, outcome: str) -> None:
        """One call came out; ``began`` is of ``time.perf_counter``."""
        self.times.append(time.perf_counter() - began)
        self.got[outcome] += 1

    def percentile(self, part: float) -> float:
        """Seconds within which ``part`` (0 to 1) of the calls were answered: the nearest rank."""
        ranked = sorted(self.times)
        return ranked[min(len(ranked) - 1, int(part * len(ranked)))]


@dataclass(slots=True)
class Report:
    """Everything that was prepared and done, in order."""

    preparations: list[tuple[str, float, str]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    chapter: str = ""
    """The heading for the steps to come."""
    told: bool = False
    """Whether the table of steps was printed."""

    @contextmanager
    def preparing(self, title: str) -> Iterator[list[str]]:
        """Measures a preparation; what is appended to the list is shown beside it."""
        began, notes = time.perf_counter(), list[str]()
        yield notes
        self.preparations.append((title, time.perf_counter() - began, ", ".join(notes)))

    def step(self, title: str, expected: str, count: int = 1) -> Step:
        step = Step(title, expected, count, chapter=self.chapter)
        self.steps.append(step)
        return step

    def fact(self, title: str, expected: str, got: str) -> None:
        """Something that was counted or compared, not called."""
        self.step(title, expected).got[got] += 1

    def tell(self, out: Console) -> None:
        """The table, once; then whatever differed and has not been told."""
        if not self.told:
            out.print(self.step_table())
        self.told = True
        for step in self.failures:
            out.print(
                f"Not as expected: {step.title}: expected {step.expected} x {step.count}, got {describe(step.got)}."
            )
        if not self.failures:
            out.print(f"All {len(self.steps)} steps came out as expected.")

    @property
    def failures(self) -> list[Step]:
        return [step for step in self.steps if not step.passed]

    def preparation_table(self) -> Table:
        table = Table(title="Made ready", title_justify="left")
        table.add_column("what")
        table.add_column("seconds", justify="right")
        table.add_column("remark")
        for title, seconds, remark in self.preparations:
            table.add_row(title, f"{seconds:.2f}", remark)
        return table

    def step_table(self) -> Table:
        table = Table(title="What happened", title_justify="left")
        for name in ("", "step", "expected", "got"):
            table.add_column(name, overflow="fold")
        for name in ("count", "seconds", "per second", "p50 ms", "p99 ms"):
            table.add_column(name, justify="right", no_wrap=True)
        chapter = ""
        for step in self.steps:
            if step.chapter != chapter:
                chapter = step.chapter
                table.add_section()
                table.add_row("", f"[bold]{chapter}[/]")
            mark = "[green]ok[/]" if step.passed else "[bold red]NO[/]"
            got = "as expected" if step.passed else f"[bold red]{describe(step.got)}[/]"
            table.add_row(mark, step.title, step.expected, got, *_figures(step))
        return table


def describe(got: Counter[str]) -> str:
    """Outcomes in a cell: the one there was, or each with its number."""
    if len(got) == 1:
        return next(iter(got))
    return "; ".join(f"{number} x {outcome}" for outcome, number in got.most_common()) or "nothing"


def _figures(step: Step) -> tuple[str, ...]:
    """Count, seconds, rate and percentiles: as many of them as mean something."""
    if not step.times:
        return ()
    count, p50 = str(len(step.times)), f"{1000 * step.percentile(0.5):.1f}"
    if len(step.times) == 1:
        return count, f"{step.seconds:.2f}", "", p50
    rate, p99 = f"{len(step.times) / step.seconds:.0f}", f"{1000 * step.percentile(0.99):.1f}"
    return count, f"{step.seconds:.2f}", rate, p50, p99
