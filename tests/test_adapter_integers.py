"""A whole number may come as 40.0, which JSON Schema takes for an integer: every adapter does with it what 40 does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gsb.testing.cassette import Tape
from gsb.testing.conduct import stage
from gsb.testing.subject import find_subject

EXAMPLES = [
    ("customs", "batch"),
    ("fmis", "purchase-order"),
    ("hrmis", "payroll-list"),
    ("hrmis", "post"),
    ("procurement", "release"),
    ("registry", "changes"),
]


def floating(value: Any) -> Any:
    """The same with every integer as a float."""
    match value:
        case bool():
            return value
        case int():
            return float(value)
        case dict():
            return {name: floating(each) for name, each in value.items()}
        case list():
            return [floating(each) for each in value]
    return value


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
async def test_a_whole_number_may_come_as_a_float(name: str, example: str) -> None:
    subject = find_subject(name)
    cassette = subject.cassettes[example]
    body = floating(cassette.request)
    assert repr(body) != repr(cassette.request), "the example has no whole number"
    assert subject.schemas[f"{cassette.service}/request"].faults(body) == []
    async with stage(subject) as (adapter, peer, _):
        peer.tape = Tape([cassette])
        reply = await adapter.handle(replace(cassette.asked(), body=body))
        assert reply.body == cassette.reply
        assert (peer.tape.unknown, peer.tape.other) == ([], [])
