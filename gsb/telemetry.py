"""Logs and trace context. One JSON line per exchange; no value of personal data ever stands in a log.

Loggers are the standard library's, below ``gsb``; what a line says beyond its message is passed as ``extra`` under
the one key ``facts``, so that a library's own records cannot slip in fields.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, TextIO

import orjson

from gsb.model import timestamp

TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context level 1, section 3.2, version 00."""

trace: ContextVar[str | None] = ContextVar("trace", default=None)
"""The traceparent of the work at hand."""


def child_trace(parent: str | None) -> str:
    """A traceparent for work that ``parent`` caused: its trace id, a new span id. A bad parent begins a new trace."""
    random = os.urandom(24).hex()
    if parent is None or not TRACEPARENT.fullmatch(parent):
        return f"00-{random[16:]}-{random[:16]}-01"
    return f"{parent[:36]}{random[:16]}{parent[52:]}"


class Brief(logging.LogRecord):
    """A record of what a line tells, made for each exchange: what else there is to know of one takes longer to look up
    than all of the line (https://docs.python.org/3/howto/logging.html#optimization)."""

    def __init__(
        self,
        name: str,
        level: int,
        pathname: str,
        lineno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,
        sinfo: str | None = None,
    ) -> None:
        self.name, self.levelno, self.levelname = name, level, logging.getLevelName(level)
        self.msg, self.args, self.exc_info, self.exc_text = msg, args, exc_info, None
        self.pathname = self.filename = pathname
        self.lineno, self.created, self.stack_info = lineno, time.time(), sinfo


def tell(logger: logging.Logger, level: int, message: str, facts: dict[str, object]) -> None:
    """What ``logger.log(level, message, extra={"facts": facts})`` does, for the line that there is of each exchange:
    without looking for names in ``extra`` that a record has of its own."""
    if logger.isEnabledFor(level):
        record = Brief(logger.name, level, "", 0, message, (), None)
        vars(record)["facts"] = facts
        logger.handle(record)


class JsonLines(logging.Formatter):
    """A record as one line of JSON: ``at``, ``level``, ``logger``, ``message`` and its facts."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        line |= getattr(record, "facts", {})
        if record.exc_info and record.exc_info[0] is not None:
            # The message of an exception may quote what it choked on; its type and place never do.
            line["error"] = record.exc_info[0].__name__
            line["place"] = _place(record)
        return orjson.dumps(line).decode()


def _message(record: logging.LogRecord) -> str:
    """What a record says. A library may quote what it choked on, in its arguments or in lines that it adds (asyncio
    does, of an exception that nobody caught), so of its records only the first line of the template is told."""
    if record.name.partition(".")[0] == "gsb":
        return record.getMessage()
    return str(record.msg).partition("\n")[0].encode(errors="replace").decode()


def _place(record: logging.LogRecord) -> list[str]:
    frames = []
    traceback = record.exc_info[2] if record.exc_info else None
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f"{code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno}:{code.co_name}")
        traceback = traceback.tb_next
    return frames[-6:]


class Lines(logging.StreamHandler[TextIO]):
    """Makes and writes the lines of one turn of the event loop together, at its end, with one system call.

    What is logged where no event loop runs is written at once, and ``logging`` flushes its handlers when the process
    ends: only a kill loses lines, those of the turn in which it comes.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._records: deque[logging.LogRecord] = deque()
        self._soon = False

    def handle(self, record: logging.LogRecord) -> bool:
        """Without a filter, and without a lock: to add to a queue takes none."""
        self._records.append(record)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
        else:
            if not self._soon:
                self._soon = True
                loop.call_soon(self.flush)
        return True

    def flush(self) -> None:
        self._soon = False
        # To log that nothing can be logged would begin anew in every turn. The stream keeps what it can for later.
        with suppress(OSError):
            self.stream.write("".join(self._lines()))
            super().flush()

    def _lines(self) -> Iterator[str]:
        with suppress(IndexError):  # another thread may have taken the last one
            while True:
                record = self._records.popleft()
                try:
                    yield f"{self.format(record)}\n"
                except (TypeError, ValueError):
                    self.handleError(record)


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send everything logged below ``gsb`` to standard error as JSON lines, and warnings of libraries too."""
    handler = Lines(os.fdopen(sys.stderr.fileno(), "w", encoding="utf-8", closefd=False))
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("gsb").setLevel(level)
    logging.setLogRecordFactory(Brief)
    # No line tells its place in the code, and to look it up is a third of what a line costs.
    vars(logging)["_srcfile"] = None
