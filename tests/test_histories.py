"""The checker of histories finds nothing wrong with a good history, and each breach in one that is spoilt."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gsb.evidence.entry import make_entry
from gsb.model import FINAL, Effect, Entry, Exchange, Outcome, State
from gsb.store.logs import Entered
from tests.histories import checker
from tests.histories.checker import Finding, Later, Line
from tests.histories.load import Ended, Op

ID = "0190-1"
END = Ended("done", "done", 200, {"key": "k", "receipt": 1})
LINE = Line("post", "k", ID, 1)
LATER = Later({"state": "done", "effect": "done"}, ID, 200, END)


def op(**more: Any) -> Op:
    made = Op("k", "post", {}, 1, at_once=True, exchange=ID, ended=END)
    return replace(made, **more)


def entry(kind: str, **more: Any) -> Entry:
    return make_entry(kind, 0.0, {"exchange": ID, **more}, {})


ACCEPTED, OUTCOME = entry("accepted"), entry("outcome", state="done", attempt=1)
UNKNOWN, ACT = entry("unknown", state="unknown"), entry("act", state="done")


def exchange(*entries: Entry, state: State = State.DONE, name: str = ID) -> Exchange:
    return Exchange(
        id=name,
        agency="payroll",
        service="ledger/post/v1",
        effect=Effect.ONCE,
        state=state,
        purpose="payroll",
        agreement="a-1",
        accepted_at=0.0,
        expires_at=1.0,
        attempt=1,
        reason=None,
        due_at=None,
        began_at=0.0,
        outcome=Outcome(state, "done", 200) if state in FINAL else None,
        entries=entries,
    )


def kinds(found: list[Finding]) -> set[str]:
    assert all(finding.detail for finding in found)
    return {finding.kind for finding in found}


def test_effects() -> None:
    assert checker.effects_of([LINE, replace(LINE, key="other")]) == []
    assert kinds(checker.effects_of([LINE, LINE])) == {"twice"}
    assert kinds(checker.effects_of([LINE, replace(LINE, exchange="0190-2", receipt=2)])) == {"twice"}


def test_an_effect_that_is_being_written_is_not_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "effects"
    assert checker.read_effects(path) == []
    line = json.dumps({"service": "post", "key": "k", "exchange": ID, "receipt": 1})
    path.write_text(f"{line}\n{line[:20]}")
    assert checker.read_effects(path) == [LINE]


NONE = replace(END, state="failed", effect="none", status=503)


@pytest.mark.parametrize(
    ("ended", "lines", "found"),
    [
        (END, [LINE], set()),
        (None, [LINE], set()),
        (NONE, [], set()),
        (NONE, [LINE], {"untrue"}),
        (END, [], {"untrue"}),
        (END, [replace(LINE, receipt=2)], {"untrue"}),
        (END, [LINE, replace(LINE, receipt=2)], {"untrue"}),
    ],
)
def test_outcomes(ended: Ended | None, lines: list[Line], found: set[str]) -> None:
    assert kinds(checker.outcomes_of([op(ended=ended)], lines)) == found


def test_pursuits() -> None:
    assert checker.pursuits_of([op()]) == []
    assert kinds(checker.pursuits_of([op(failure="no answer")])) == {"unfinished"}
    assert kinds(checker.pursuits_of([op(others={"0190-2"})])) == {"changed"}


@pytest.mark.parametrize(
    ("known", "later", "found"),
    [
        (op(), LATER, set()),
        (op(ended=None), LATER, set()),
        (op(ended=None), replace(LATER, ended=None, status=202), set()),
        (op(), replace(LATER, shown=None), {"lost"}),
        (op(), replace(LATER, exchange="0190-2"), {"lost"}),
        (op(), replace(LATER, exchange=None, status=404, ended=None), {"lost"}),
        (op(), replace(LATER, shown={"state": "running", "effect": None}), {"changed"}),
        (op(), replace(LATER, ended=replace(END, body={"key": "k", "receipt": 2})), {"changed"}),
        (op(), replace(LATER, ended=None, status=202), {"changed"}),
    ],
)
def test_what_was_acknowledged(known: Op, later: Later, found: set[str]) -> None:
    assert kinds(checker.later_of(known, later)) == found


@pytest.mark.parametrize(
    ("known", "held", "found"),
    [
        (op(), [exchange(ACCEPTED, OUTCOME)], set()),
        (op(ended=None), [exchange(ACCEPTED, state=State.RUNNING)], set()),
        (op(exchange=None, ended=None), [], set()),
        (op(), [], {"lost"}),
        (op(ended=None), [exchange(ACCEPTED, OUTCOME, name="0190-2")], {"lost"}),
        (op(), [exchange(ACCEPTED, state=State.RUNNING)], {"changed"}),
        (op(), [exchange(ACCEPTED, OUTCOME, state=State.FAILED)], {"changed"}),
        (op(ended=NONE), [exchange(ACCEPTED, OUTCOME, state=State.FAILED)], {"changed"}),
    ],
)
def test_what_was_told_lies_in_the_store(known: Op, held: list[Exchange], found: set[str]) -> None:
    assert kinds(checker.kept(held, [known])) == found


@pytest.mark.parametrize(
    ("standing", "found"),
    [
        (exchange(ACCEPTED, OUTCOME), set()),
        (exchange(ACCEPTED, UNKNOWN, ACT), set()),
        (exchange(ACCEPTED, state=State.RUNNING), {"unfinished"}),
        (exchange(ACCEPTED, UNKNOWN, state=State.UNKNOWN), {"unfinished"}),
        (exchange(ACCEPTED), {"unproven"}),
        (exchange(OUTCOME), {"unproven"}),
        (exchange(ACCEPTED, ACCEPTED, OUTCOME), {"unproven"}),
        (exchange(ACCEPTED, OUTCOME, OUTCOME), {"unproven"}),
        (exchange(ACCEPTED, OUTCOME, state=State.REFUSED), {"unproven"}),
        (exchange(ACCEPTED, ACT), {"unproven"}),
        (exchange(ACCEPTED, OUTCOME, entry("late", state="done", attempt=2)), set()),
        (exchange(ACCEPTED, OUTCOME, entry("late", state="done", attempt=1)), {"unproven"}),
        (exchange(ACCEPTED, OUTCOME, name="0190-2"), {"stranger"}),
    ],
)
def test_what_the_store_holds(standing: Exchange, found: set[str]) -> None:
    assert kinds(checker.standing([standing], [op()])) == found


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda each: each, set()),
        (lambda each: replace(each, index=None), {"unrecorded"}),
        (lambda each: replace(each, index=0), {"unrecorded"}),
        (lambda each: replace(each, index=2), {"unrecorded"}),
        (lambda each: replace(each, entry=ACT), {"unrecorded"}),
    ],
)
def test_what_the_log_holds(spoil: Callable[[Entered], Entered], found: set[str]) -> None:
    entered = [Entered(ACCEPTED, "log", 0), spoil(Entered(OUTCOME, "log", 1))]
    assert kinds(checker.recorded(entered, [ACCEPTED.content, OUTCOME.content])) == found
