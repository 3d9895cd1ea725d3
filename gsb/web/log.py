"""The evidence log as it is read: checkpoints for everybody, tiles and bundles of entries for auditors.

What is served are the recorder's files, up to what it has published; nothing is made here, and who reads leaves no
entry: a log that grew by being read would never be read to its end. A log is called like the last part of its origin,
so that ``/log/{log}/`` holds for ever what it holds today. Below ``/log/`` itself lies the newest log, for whoever
does not know how it is called; since that is another one next year, nothing there may be kept unasked.

Formats: c2sp.org/tlog-tiles, "Endpoints"; RFC 9110, sections 8.8.3, 12.5.3 and 13.1.2.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import re
from email.utils import formatdate

from gsb.bus import Bus
from gsb.errors import LogUnavailable, OperatorRequired, PathUnknown, RoleMissing
from gsb.evidence.log import Files, Folder
from gsb.evidence.tiles import HEIGHT, WIDTH, Bundle, Tile, parse_path
from gsb.model import Answer, Call, Signed
from gsb.store.logs import LogState
from gsb.web.callers import for_caller

TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
FRESH = "max-age=2"
"""A checkpoint grows old in a few seconds."""
FOR_EVER = "max-age=31536000, immutable"
ASK_AGAIN = "no-cache"
TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e]*")')


async def checkpoint(bus: Bus, call: Call, name: str | None = None) -> Answer:
    """``GET /log/checkpoint`` and ``GET /log/{log}/checkpoint``: the signed note that was published last."""
    state = await find_log(bus, name)
    headers = {"Cache-Control": FRESH, "Last-Modified": formatdate(state.published_at, usegmt=True)}
    return file_answer(call, state.published_note, TEXT, headers)


async def file(bus: Bus, call: Call, *where: str) -> Answer:
    """``GET /log/{tile}`` and ``GET /log/{log}/{tile}``, on the operations port."""
    named_log, path = where[:-1], where[-1]
    state = await find_log(bus, *named_log)
    named = wanted(state, path)
    content = await read(bus, state, named)
    headers = {"Cache-Control": FOR_EVER if named_log else ASK_AGAIN}
    if not isinstance(named, Bundle):
        return file_answer(call, content, BYTES, headers)
    # Entries are text and shrink. Hashes are noise, and stay as they are.
    headers["Vary"] = "Accept-Encoding"
    if not takes_gzip(call.accept_encoding):
        return file_answer(call, content, BYTES, headers)
    packed = await asyncio.to_thread(gzip.compress, content, 6, mtime=0)
    return file_answer(call, packed, BYTES, headers | {"Content-Encoding": "gzip"})


async def file_for_auditor(bus: Bus, call: Call, *where: str) -> Answer:
    """``GET /log/{tile}`` and ``GET /log/{log}/{tile}``, at the API: signed both ways, so neither coded nor kept."""

    async def act(signed: Signed) -> Answer:
        operator = bus.catalogue.operators.get(signed.issuer)
        if operator is None:
            raise OperatorRequired
        if "auditor" not in operator.roles:
            raise RoleMissing(extra={"role": "auditor"})
        state = await find_log(bus, *where[:-1])
        return Answer(200, await read(bus, state, wanted(state, where[-1])), BYTES)

    return await for_caller(bus, call, act, bus.catalogue.gsb.bus.base_urls)


async def find_log(bus: Bus, name: str | None = None) -> LogState:
    """The log of this name, or the newest one; raises PathUnknown when there is none with a published checkpoint."""
    for state in reversed(await bus.store.logs()):
        if state.published_note and name in (None, state.origin.rpartition("/")[2]):
            return state
    raise PathUnknown


def files_of(bus: Bus, state: LogState) -> Files:
    return Folder(bus.catalogue.gsb.log.path).files(state.origin)


def wanted(state: LogState, path: str) -> Tile | Bundle:
    """What a path names, if the published log has it. Raises PathUnknown."""
    try:
        named = parse_path(path)
    except ValueError:
        raise PathUnknown from None
    if named.number * WIDTH + named.width > _hashes(state, named):
        raise PathUnknown
    return named


def _hashes(state: LogState, named: Tile | Bundle) -> int:
    """How many entries, or hashes of its level, the published log has."""
    return state.published >> (HEIGHT * named.level if isinstance(named, Tile) else 0)


async def read(bus: Bus, state: LogState, named: Tile | Bundle) -> bytes:
    """The file. Raises PathUnknown for a partial one that has been outgrown, LogUnavailable for any other that is not
    there or cannot be read."""
    try:
        content = await asyncio.to_thread(files_of(bus, state).read, named.path)
    except OSError as error:
        raise unavailable(bus, state, f"{named.path} cannot be read ({error.strerror})") from error
    if content is not None:
        bus.log_files.is_over()
        return content
    if named.width < WIDTH and named.number * WIDTH + named.width != _hashes(state, named):
        raise PathUnknown
    raise unavailable(bus, state, f"{named.path} is missing")


def unavailable(bus: Bus, state: LogState, why: str) -> LogUnavailable:
    """What the reader hears; the operator is told why, and what to do, once and not with each reader."""
    folder = bus.catalogue.gsb.log.path / state.origin.rpartition("/")[2]
    bus.log_files.is_there(
        f"the files of the log {state.origin} are damaged: {why}; move {folder} aside and start the node anew, which "
        "makes them again from the store"
    )
    return LogUnavailable()


def file_answer(call: Call, content: bytes, content_type: str, headers: dict[str, str]) -> Answer:
    """The file, or 304 if the caller has these very bytes."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = headers | {"ETag": tag}
    if has(call.if_none_match, tag):
        return Answer(304, b"", None, {name: value for name, value in headers.items() if name != "Content-Encoding"})
    return Answer(200, content, content_type, headers)


def has(header: str | None, tag: str) -> bool:
    """Whether If-None-Match names this representation. Weakly compared (RFC 9110, section 13.1.2)."""
    if header is None:
        return False
    return header.strip() == "*" or tag in TAG.findall(header)


def takes_gzip(header: str | None) -> bool:
    """Whether Accept-Encoding takes gzip (RFC 9110, section 12.5.3); without the header nothing is coded."""
    for part in (header or "").lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() in ("gzip", "x-gzip"):
            return not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight)
    return False
