"""What happened in the demonstration: steps that count their outcomes, and the tables that show them.

It decides only whether a step went as expected; it calls nothing. A crash loses the report, nothing else.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

PLAIN_WIDTH = 120
"""Columns where there is no terminal to ask."""
FIGURES = ("calls", "seconds", "per second", "p50 ms", "p99 ms")


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
    def wanted(self) -> str:
        return _times(self.count, self.expected)

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
    trouble: str = ""
    """Why it ended before its time."""
    proof: list[str] = field(default_factory=list)
    """What was proved of all exchanges together, and how to repeat it."""
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
            out.print("", self.outcome_table(), "", self.speed_table(), "", sep="\n")
        self.told = True
        for step in self.failures:
            differs = f"{step.title}: expected {step.wanted}, got {describe(step.got)}"
            out.print(f"Not as expected: {differs}", soft_wrap=True, markup=False)
        if not self.failures:
            out.print(f"All {len(self.steps)} steps came out as expected.")
        for line in self.proof:
            out.print(line, soft_wrap=True, markup=False)

    @property
    def failures(self) -> list[Step]:
        return [step for step in self.steps if not step.passed]

    def preparation_table(self) -> Table:
        table = _table("Made ready", "what", "seconds", "remark")
        for title, seconds, remark in self.preparations:
            table.add_row(title, f"{seconds:.2f}", remark)
        return table

    def outcome_table(self) -> Table:
        table = _table("What happened", "", "step", "expected", "got")
        chapter = ""
        for step in self.steps:
            if step.chapter != chapter:
                chapter = step.chapter
                table.add_row()
                table.add_row("", f"[bold]{chapter}[/]")
            mark = "[green]ok[/]" if step.passed else "[bold red]NO[/]"
            got = "as expected" if step.passed else f"[bold red]{describe(step.got)}[/]"
            table.add_row(mark, step.title, step.wanted, got)
        return table

    def speed_table(self) -> Table:
        """Of the steps that made several calls, since one call has neither a rate nor percentiles."""
        table = _table("How fast", "step", *FIGURES)
        for step in (step for step in self.steps if len(step.times) > 1):
            table.add_row(
                step.title,
                str(len(step.times)),
                f"{step.seconds:.2f}",
                f"{len(step.times) / step.seconds:.0f}",
                f"{1000 * step.percentile(0.5):.1f}",
                f"{1000 * step.percentile(0.99):.1f}",
            )
        return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column in FIGURES else "left")
    return table


def describe(got: Counter[str]) -> str:
    """Each outcome with its number."""
    return "; ".join(_times(number, outcome) for outcome, number in got.most_common()) or "nothing"


def _times(number: int, outcome: str) -> str:
    return outcome if number == 1 else f"{number} x {outcome}"
