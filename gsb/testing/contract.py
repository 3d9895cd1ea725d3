"""What every adapter owes the bus, as rules: each judged by itself, in a test or by ``gsb adapter grade``.

    class TestLandRegistry(AdapterContract):
        adapter = "land_registry"          # installed, or the folder of its package

A rule is kept, broken, or exempt: because it does not concern the adapter, or because its ``contract.toml`` says so and
why. Adapters are foreign code: whatever they raise where nothing may be raised breaks the rule that is being judged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from gsb.testing import conduct, faults, still
from gsb.testing.faults import NotApplicable
from gsb.testing.subject import Subject, Unfit, find_subject

Check = Callable[[Subject], AsyncIterator[str]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that an adapter owes. The docstring of its check says why."""

    name: str
    title: str
    check: Check


RULES = (
    Rule("manifest", "the manifest is complete", still.manifest),
    Rule("settings", "every setting is documented", still.settings),
    Rule("examples", "every service has an example", still.examples),
    Rule("imports", "of the bus only gsb.sdk is imported", still.imports),
    Rule("reply", "replies fit their schema", conduct.reply),
    Rule("down", "a system that is down is unavailable, and used again when it is back", faults.down),
    Rule("slow", "a system that takes too long is given up", faults.slow),
    Rule("garbage", "an answer that makes no sense is not believed", faults.garbage),
    Rule("half_closed", "an answer that breaks off is not believed", faults.half_closed),
    Rule("throttled", "429 with Retry-After is a pause of that length", faults.throttled),
    Rule("sent", "sent=False is said only when nothing was sent", faults.sent),
    Rule("cancelled", "a call that is cancelled ends, and the next one works", conduct.cancelled),
    Rule("repeated", "a repeated call of a repeatable service has one effect", conduct.repeated),
    Rule("concurrency", "the system gets as many calls at once as the bus makes", conduct.concurrency),
    Rule("close", "nothing is left behind on close", conduct.close),
    Rule("private", "no secret or personal value stands in logs or repr", conduct.private),
    Rule("loop", "the event loop is never blocked for more than 50 ms", conduct.loop),
)
"""All of them, in the order in which an integrator meets them."""
NAMES = {rule.name for rule in RULES}


class Verdict(NamedTuple):
    """How an adapter stands to one rule."""

    rule: Rule
    result: Literal["pass", "fail", "exempt"]
    reasons: tuple[str, ...] = ()


async def judge(subject: Subject, rule: Rule) -> Verdict:
    """Raises Unfit if the contract's own data do not fit."""
    excused = subject.contract.exempt.get(rule.name)
    if excused is not None:
        return Verdict(rule, "exempt", (excused,))
    try:
        found = [fault async for fault in rule.check(subject)]
    except NotApplicable as reason:
        return Verdict(rule, "exempt", (str(reason),))
    except Unfit:
        raise
    except Exception as error:
        found = [f"{type(error).__name__} escaped the adapter: {error}"]
    return Verdict(rule, "fail" if found else "pass", tuple(dict.fromkeys(found)))


async def grade(subject: Subject) -> list[Verdict]:
    """Every rule. Raises Unfit."""
    unknown = subject.contract.exempt.keys() - NAMES
    if unknown:
        raise Unfit(f"contract.toml exempts the adapter from {min(unknown)}, which is no rule")
    return [await judge(subject, rule) for rule in RULES]


class AdapterContract:
    """The contract suite as a class of tests, one for each rule. Derive from it and name the adapter.

    Nothing is skipped: a rule from which the adapter is exempt is a test that passes; ``gsb adapter grade`` says why.
    """

    adapter: ClassVar[str | Path]
    """The name of an installed adapter, or the folder of its package, in which ``pyproject.toml`` lies."""


def _test(rule: Rule) -> Callable[[AdapterContract], None]:
    def test(self: Any) -> None:
        verdict = asyncio.run(judge(find_subject(str(self.adapter)), rule))
        if verdict.result == "fail":
            raise AssertionError("\n".join([f"{rule.title}:", *verdict.reasons]))

    test.__doc__ = rule.check.__doc__
    return test


for _rule in RULES:
    setattr(AdapterContract, f"test_{_rule.name}", _test(_rule))
