"""Logs that hold facts but no values, and trace context that survives or begins anew."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from gsb.telemetry import TRACEPARENT, JsonLines, Lines, child_trace, tell

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
    gc.collect()  # what other tests have left is told of before anybody hears
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


@contextmanager
def lines_of(name: str) -> Iterator[tuple[logging.Logger, Callable[[], list[str]]]]:
    """A logger whose lines go through a pipe, and what has come out of it since the last look."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    logger = logging.getLogger(name)
    stream = os.fdopen(writing, "w", encoding="utf-8")
    handler = Lines(stream)
    handler.setFormatter(JsonLines())
    logger.addHandler(handler)

    def read() -> list[str]:
        try:
            return [json.loads(line)["message"] for line in os.read(reading, 1 << 16).splitlines()]
        except BlockingIOError:
            return []

    try:
        yield logger, read
    finally:
        logger.removeHandler(handler)
        stream.close()
        os.close(reading)


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
def test_a_line_told_quickly_is_the_line_that_is_logged(level: int, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("gsb.quick")
    facts: dict[str, object] = {"exchange": "1", "code": None}
    with caplog.at_level(logging.INFO, "gsb.quick"):
        logger.log(level, "exchange ended", extra={"facts": facts})
        tell(logger, level, "exchange ended", facts)
    lines = [json.loads(JsonLines().format(record)) | {"at": ""} for record in caplog.records]
    assert lines == [lines[0], lines[0]] if level == logging.INFO else lines == []


async def test_lines_of_one_turn_are_written_together_when_it_ends_and_others_at_once() -> None:
    with lines_of("gsb.turns") as (logger, read):
        for _ in range(2):
            logger.error("one")
            logger.error("two")
            assert read() == []
            await asyncio.sleep(0)
            assert read() == ["one", "two"]
        await asyncio.to_thread(logger.error, "from a thread")
        assert read() == ["from a thread"]


async def test_a_line_that_cannot_be_made_takes_no_other_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    with lines_of("gsb.odd") as (logger, read):
        logger.error("one")
        logger.error("odd", extra={"facts": {"not JSON": object()}})
        logger.error("three")
        await asyncio.sleep(0)
        assert read() == ["one", "three"]
    assert "--- Logging error ---" in capsys.readouterr().err


def test_a_line_that_a_loop_left_behind_comes_with_the_next_one() -> None:
    with lines_of("gsb.left") as (logger, read):
        loop = asyncio.new_event_loop()
        # The loop ends with the turn in which it is told to, and so before the turn in which the line is written.
        loop.call_soon(loop.stop)
        loop.call_soon(logger.error, "last")
        loop.run_forever()
        loop.close()
        assert read() == []
        logger.error("next")
        assert read() == ["last", "next"]


async def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    unhandled: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    reading, writing = os.pipe()
    os.close(reading)
    logger, handler = logging.getLogger("gsb.broken"), Lines(os.fdopen(writing, "w", encoding="utf-8"))
    logger.addHandler(handler)
    try:
        logger.error("nobody reads")
        await asyncio.sleep(0)
    finally:
        logger.removeHandler(handler)
        with pytest.raises(BrokenPipeError):
            handler.stream.close()
    assert unhandled == []


def test_what_was_logged_last_is_written_when_the_process_ends() -> None:
    program = """
import asyncio, logging
from gsb.telemetry import log_to_stderr
async def work():
    for number in range(3):
        logging.getLogger("gsb.end").info("line %s", number)
    raise SystemExit(3)
log_to_stderr()
asyncio.run(work())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert [json.loads(line)["message"] for line in done.stderr.splitlines()] == ["line 0", "line 1", "line 2"]
