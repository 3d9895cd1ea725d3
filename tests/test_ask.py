"""What a witness may answer, and what is believed of it: real requests to a server that answers as the test says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gsb import ask
from gsb.ask import Asking, Contradicted, Failed, Wanted
from gsb.evidence.checkpoint import Cosigner, Signer, parse_note
from gsb.evidence.witness import SIZE_TYPE, parse_request
from tests.support.sockets import listening, read_request
from tests.support.witness import GrowingLog, knows, witnessing

TEXT = "text/plain; charset=utf-8"
Answer = tuple[int, str, bytes]


@dataclass
class Scripted:
    """A witness that answers POSTs in turn, the last answer again and again, and shows a checkpoint or none."""

    posts: list[Answer]
    shows: bytes | None = None
    cosigner: Cosigner = field(default_factory=lambda: Cosigner("w.example", Ed25519PrivateKey.generate()))
    asked: list[int] = field(default_factory=list)
    """The old size of each request."""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            head, _, body = request.partition(b"\r\n\r\n")
            if head.startswith(b"GET"):
                status, kind, content = (404, TEXT, b"") if self.shows is None else (200, TEXT, self.shows)
            else:
                self.asked.append(parse_request(body).old)
                status, kind, content = self.posts[0] if len(self.posts) == 1 else self.posts.pop(0)
            lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(content)}", "", ""]
            if status in (301, 307):
                lines.insert(1, "Location: /elsewhere")
            writer.write("\r\n".join(lines).encode() + content)
            await writer.drain()


LOG = GrowingLog()
FORK = LOG.fork(2)


def wanted(size: int = 10, known: int | None = None, log: GrowingLog = LOG) -> Wanted:
    return Wanted.of(Signer(log.origin, log.key).verifier, log.note(size), size if known is None else known, log.read)


def size(number: int) -> Answer:
    return 409, SIZE_TYPE, f"{number}\n".encode()


def cosigned(by: Cosigner, note: bytes, at: int = 1) -> Answer:
    return 200, TEXT, by.sign(parse_note(note).text, at).line().encode()


async def asked(there: Scripted, offer: Wanted | None = None) -> object:
    async with listening(there.talk) as listener, aiohttp.ClientSession() as http:
        return await Asking(listener.url, there.cosigner.verifier).cosign(http, offer or wanted())


async def refused(there: Scripted, offer: Wanted | None = None) -> tuple[str, str]:
    with pytest.raises((Failed, Contradicted)) as raised:
        await asked(there, offer)
    error = raised.value
    return (error.reason if isinstance(error, Failed) else "contradiction"), str(error)


# --- what is believed


async def test_it_is_asked_again_from_the_size_that_it_tells() -> None:
    there = Scripted([size(4)])
    there.posts.append(cosigned(there.cosigner, LOG.note(10), 7))
    signature = await asked(there)
    assert there.asked == [0, 4]
    assert signature == there.cosigner.sign(parse_note(LOG.note(10)).text, 7)


async def test_the_newest_of_its_cosignatures_counts() -> None:
    there = Scripted([])
    lines = b"".join(cosigned(there.cosigner, LOG.note(10), at)[2] for at in (5, 9, 3))
    other = cosigned(Cosigner("other.example", Ed25519PrivateKey.generate()), LOG.note(10))[2]
    there.posts.append((200, TEXT, other + lines))
    assert await asked(there) == there.cosigner.sign(parse_note(LOG.note(10)).text, 9)


async def test_what_it_told_is_remembered_until_it_tells_otherwise(tmp_path: Path) -> None:
    async with witnessing(tmp_path, knows(LOG)) as there, aiohttp.ClientSession() as http:
        asking = Asking(there.url, there.verifier)
        for number in (3, 7, 300):
            assert await asking.cosign(http, wanted(number)) is not None
        assert await asking.cosign(http, wanted(7, known=300)) is None, "a later one is cosigned, and it is ours"
        await there.cosigned(LOG, 300, 310)  # somebody else's request, perhaps one that was given up
        assert await asking.cosign(http, wanted(320)) is not None


# --- what is not


@pytest.mark.parametrize(
    ("answer", "reason", "text"),
    [
        ((404, TEXT, b""), "refused", "does not know the log bus.example/log/2026: give whoever runs it"),
        ((403, TEXT, b""), "refused", "does not know the key of the log"),
        ((400, TEXT, b""), "refused", "answers 400"),
        ((429, TEXT, b""), "refused", "answers 429"),
        ((503, TEXT, b""), "refused", "answers 503"),
        ((301, TEXT, b""), "refused", "answers 301"),
        ((307, TEXT, b""), "refused", "answers 307"),
        ((422, TEXT, b""), "refused", "answers 422"),
        ((409, TEXT, b"4\n"), "refused", "answers 409"),
        (size(0), "refused", "answers 409"),
        ((409, SIZE_TYPE, b"04\n"), "unsound", "answers no size"),
        ((409, SIZE_TYPE, b"4"), "unsound", "answers no size"),
        ((409, SIZE_TYPE, b"-4\n"), "unsound", "answers no size"),
        ((200, TEXT, b""), "unsound", "answers no cosignature"),
        ((200, TEXT, b"\xff\n"), "unsound", "answers no cosignature"),
        ((200, TEXT, b"x" * 70_000), "unsound", "answers more than 65536 bytes"),
        (cosigned(Cosigner("w.example", Ed25519PrivateKey.generate()), LOG.note(10)), "unsound", "with the key"),
    ],
)
async def test_whatever_else_it_answers_is_a_failure(answer: Answer, reason: str, text: str) -> None:
    why, said = await refused(Scripted([answer]))
    assert (why, text in said) == (reason, True), said


async def test_a_cosignature_of_something_else_is_none() -> None:
    there = Scripted([])
    there.posts.append(cosigned(there.cosigner, FORK.note(10)))
    assert (await refused(there))[0] == "unsound"


async def test_one_that_tells_another_size_each_time_is_left() -> None:
    there = Scripted([size(1), size(2), size(3), size(4)])
    assert (await refused(there))[0] == "unsound"
    assert there.asked == [0, 1, 2]


async def test_one_that_does_not_answer_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask, "WITHIN", 0.1)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(silent) as listener, aiohttp.ClientSession() as http:
        asking = Asking(listener.url, Scripted([]).cosigner.verifier)
        with pytest.raises(Failed, match="does not answer within"):
            await asking.cosign(http, wanted())
    async with aiohttp.ClientSession() as http:
        with pytest.raises(Failed, match="cannot be reached"):
            await asking.cosign(http, wanted())


async def test_files_of_the_log_s_own_that_are_wrong_are_told_as_such() -> None:
    damaged = Wanted.of(Signer(LOG.origin, LOG.key).verifier, LOG.note(10), 10, FORK.read)
    assert (await refused(Scripted([size(4), (422, TEXT, b"")]), damaged))[0] == "files"

    def missing(level: int, number: int, width: int) -> list[bytes]:
        raise ValueError("no such tile")

    lost = Wanted.of(Signer(LOG.origin, LOG.key).verifier, LOG.note(10), 10, missing)
    assert (await refused(Scripted([size(4), (422, TEXT, b"")]), lost))[0] == "files"


# --- contradictions: what it shows decides, and where it shows nothing, what it says


@pytest.mark.parametrize(
    "posts",
    [
        [size(4), (422, TEXT, b"")],
        [size(10), (409, TEXT, b"")],  # version 1.0.0: another root for the same size
        [size(10), size(10)],
        [size(10), (422, TEXT, b"")],
        [size(11)],
    ],
)
@pytest.mark.parametrize(
    ("shows", "reason", "text"),
    [
        (
            None,
            "contradiction",
            "it does not show the checkpoint itself (if you know that it errs, take it out of log.witnesses)",
        ),
        (b"nonsense", "contradiction", "it does not show the checkpoint itself"),
        (GrowingLog().note(4), "contradiction", "it does not show the checkpoint itself"),
        (GrowingLog("bus.example/log/2025", LOG.key).note(40), "contradiction", "it does not show"),
        (FORK.note(4), "contradiction", "it shows a checkpoint of 4 entries, signed with the log's own key"),
        (FORK.note(10), "contradiction", "signed with the log's own key"),
        (FORK.note(11), "contradiction", "signed with the log's own key"),
        (LOG.note(11), "contradiction", "signed with the log's own key"),
        (LOG.note(4), "unsound", "but it shows a checkpoint of 4 entries that agrees"),
        (LOG.note(10), "unsound", "but it shows a checkpoint of 10 entries that agrees"),
    ],
)
async def test_what_it_shows_decides_whether_it_contradicts(
    posts: list[Answer], shows: bytes | None, reason: str, text: str
) -> None:
    why, said = await refused(Scripted(list(posts), shows))
    assert (why, text in said) == (reason, True), said


async def test_a_size_that_has_its_place_but_is_not_published_contradicts_nothing() -> None:
    assert await asked(Scripted([size(11)]), wanted(10, known=12)) is None
    assert (await refused(Scripted([size(13)]), wanted(10, known=12)))[0] == "contradiction"
