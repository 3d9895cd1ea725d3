"""Recording what an adapter says to its system and hears from it, and replaying that without any socket.

A recording is as it was, secrets and persons in it: nothing here may be written down before ``gsb.testing.scrub`` has
seen it. What is sent and answered over other protocols than HTTP cannot be recorded.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from multidict import CIMultiDict
from yarl import URL

from gsb.model import Request
from gsb.sdk.errors import Broken, Refused
from gsb.sdk.http import Http, HttpReply
from gsb.testing.cassette import Cassette, Played, Tape, parsed
from gsb.testing.subject import Came, Subject, Tables

OFFLINE = "http://127.0.0.1:9"
"""Where the system is in a replay, in which nobody gets there: on this machine, as in the contract suite, since some
adapters take no other without TLS."""
OUTWARD = frozenset(
    {
        "socket.connect",
        "socket.bind",
        "socket.sendto",
        "socket.sendmsg",
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "socket.gethostbyaddr",
    }
)
"""What Python tells of before it happens (https://docs.python.org/3/library/audit_events.html)."""


class SocketForbidden(Exception):
    """Something tried to reach the network where nothing may."""


class _Gate:
    """Whether sockets are forbidden now. An audit hook cannot be taken away again, so there is one for good."""

    closed = False
    hooked = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _Gate.closed and event in OUTWARD:
        raise SocketForbidden(f"{event} during a replay")


@contextmanager
def sockets_forbidden() -> Iterator[None]:
    """Within it, whatever this process does to reach a network raises SocketForbidden."""
    if not _Gate.hooked:
        sys.addaudithook(_hook)
        _Gate.hooked = True
    _Gate.closed = True
    try:
        yield
    finally:
        _Gate.closed = False


class Recorder(Http):
    """The adapter's client, which keeps every call and its answer."""

    def __init__(self, timeout: float) -> None:
        super().__init__(timeout)
        self.calls: list[Played] = []

    async def exchange(self, method: str, url: URL, content: bytes | None, headers: Mapping[str, str]) -> HttpReply:
        reply = await super().exchange(method, url, content, headers)
        self.calls.append(_played(method, url, content or b"", reply))
        return reply


class Player(Http):
    """The adapter's client, for which a tape stands in. ``sent`` are the contents, in the order of the calls."""

    def __init__(self, tape: Tape) -> None:
        super().__init__(1.0)
        self._tape = tape
        self.sent: list[bytes] = []

    async def exchange(self, method: str, url: URL, content: bytes | None, headers: Mapping[str, str]) -> HttpReply:
        self.sent.append(content or b"")
        call = self._tape.play(method, url.raw_path_qs, content or b"")
        if call is None:
            raise Broken("no cassette holds this call")
        return HttpReply(call.status, CIMultiDict(call.headers), call.body)


def _played(method: str, url: URL, content: bytes, reply: HttpReply) -> Played:
    sent, answer = parsed(content), parsed(reply.body)
    return Played(
        method=method,
        path=url.raw_path_qs,
        content=sent,
        content_text=content.decode("utf-8", "replace") if content and sent is None else None,
        status=reply.status,
        headers=dict(reply.headers),
        answer=answer,
        answer_text=reply.body.decode("utf-8", "replace") if reply.body and answer is None else None,
    )


class Tried(NamedTuple):
    """One call of a real system, with all that was said."""

    request: Request
    at: float
    came: Came
    calls: list[Played]

    def cassette(self, note: str) -> Cassette | None:
        """As it was, with everything in it; None if it ended with neither a reply nor a refusal."""
        ended = {"reply": self.came.reply.body} if self.came.reply is not None else {}
        if isinstance(self.came.error, Refused):
            ended = {"refused": self.came.error.code}
        if not ended:
            return None
        asked = self.request
        return Cassette(
            note=note,
            service=asked.service,
            exchange=asked.exchange,
            sub=asked.sub,
            case=asked.case,
            at=self.at,
            request=asked.body,
            calls=tuple(self.calls),
            **ended,
        )


async def tried(subject: Subject, folder: Path, tables: Tables, request: Request, timeout: float) -> Tried:
    """Have the system that these settings name perform the request, once. Raises Unfit."""
    at, recorder = time.time(), Recorder(timeout)
    async with subject.opened(folder, tables, http=recorder, at=at) as adapter:
        came = await subject.call(adapter, request, timeout * 1.5)
    return Tried(request, at, came, recorder.calls)


class Replayed(NamedTuple):
    """What came of a replay, and how it differs from the cassette."""

    came: Came
    sent: list[bytes]
    faults: list[str]


async def replayed(subject: Subject, cassette: Cassette) -> Replayed:
    """Perform the exchange with the cassette in the place of the system."""
    tape = Tape([cassette])
    player = Player(tape)
    with subject.deployment() as folder, sockets_forbidden():
        async with subject.opened(folder, subject.tables(OFFLINE), http=player, at=cassette.at) as adapter:
            came = await subject.call(adapter, cassette.asked(), 5.0)
    faults = [f"it asks for {each}, which the cassette does not hold" for each in tape.unknown]
    faults += [f"what it sends with {each} is not what the cassette holds" for each in tape.other]
    faults += [f"it does not ask for {each} any more" for each in tape.unplayed]
    code = came.error.code if isinstance(came.error, Refused) else None
    if came.reply is None and code is None:
        faults.append(f"what comes is {came}")
    elif (came.reply.body if came.reply is not None else None, code) != (cassette.reply, cassette.refused):
        faults.append("it ends otherwise than the cassette")
    return Replayed(came, player.sent, faults)
