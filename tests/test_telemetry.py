"""Logs that hold facts but no values, and trace context that survives or begins anew."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import re
import sys

import pytest

from gsb.telemetry import TRACEPARENT, JsonLines, child_trace

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_child_keeps_trace_and_flags_and_gets_a_span_of_its_own() -> None:
    child = child_trace(PARENT)
    assert re.fullmatch(r"00-4bf92f3577b34da6a3ce929d0e0e4736-[0-9a-f]{16}-01", child)
    assert child != PARENT


@pytest.mark.parametrize(
    "parent",
    [
        None,
        "",
        "garbage",
        PARENT.upper(),
        PARENT.replace("00-", "ff-", 1),
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
        PARENT + "-x",
    ],
)
def test_a_bad_parent_begins_a_new_trace(parent: str | None) -> None:
    child = child_trace(parent)
    assert TRACEPARENT.fullmatch(child)
    assert "4bf92f3577b34da6a3ce929d0e0e4736" not in child


def test_a_line_is_json_with_its_facts() -> None:
    record = logging.LogRecord("gsb.exchange", logging.INFO, "x.py", 1, "exchange ended", (), None)
    record.facts = {"exchange": "e-1", "state": "done"}
    line = json.loads(JsonLines().format(record))
    assert line["message"] == "exchange ended"
    assert line["level"] == "info"
    assert (line["exchange"], line["state"]) == ("e-1", "done")


def test_an_exception_shows_its_type_and_place_but_not_its_text() -> None:
    try:
        raise ValueError("NIN-1984-0001 is not a number")
    except ValueError:
        record = logging.LogRecord("gsb", logging.ERROR, "x.py", 1, "a call failed", (), sys.exc_info())
    text = JsonLines().format(record)
    assert "NIN-1984-0001" not in text
    line = json.loads(text)
    assert line["error"] == "ValueError"
    assert "test_telemetry.py" in line["place"][-1]


async def test_what_a_library_quotes_is_not_told() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    loggers = [logging.getLogger(name) for name in ("asyncio", "sqlalchemy.pool", "gsbx")]
    for each in loggers:
        each.addHandler(handler)
    try:

        async def choke() -> None:
            raise ValueError("canary-1")

        task = asyncio.create_task(choke())
        await asyncio.wait({task})
        del task
        gc.collect()  # asyncio tells of an exception that nobody caught when its task is collected
        loggers[1].error("cannot read %r", "canary-2")
        loggers[2].error("odd \udcff")
    finally:
        for each in loggers:
            each.removeHandler(handler)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["message"] for line in lines] == [
        "Task exception was never retrieved",
        "cannot read %r",
        "odd ?",
    ]
    assert "canary" not in stream.getvalue()
