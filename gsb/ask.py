"""One witness, asked over HTTP to cosign a checkpoint (c2sp.org/tlog-witness, "add-checkpoint").

What it answers is believed as far as it can be checked: a cosignature by its key, a size by what follows from it. Two
things only it can know: that it has cosigned more entries than the log has, or other ones. Either is ``Contradicted``,
unless what it shows of itself says otherwise. Nothing is kept but the size that it answered last; a crash forgets it,
and the next request learns it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import aiohttp

from gsb.config import WitnessTable
from gsb.evidence.checkpoint import (
    Checkpoint,
    Note,
    NoteWrong,
    Signature,
    Verifier,
    open_checkpoint,
    parse_note,
    parse_signatures,
)
from gsb.evidence.log import cut_from
from gsb.evidence.merkle import ProofWrong, ReadTile, check_consistency, consistency, tree_root
from gsb.evidence.witness import ADD, SIZE_TYPE, Request, parse_size, seen_path

ANSWER_LIMIT = 65_536
"""Bytes of an answer."""
WITHIN = 10.0
"""Seconds for one request and its answer."""
TRIES = 3
"""Requests for one checkpoint: the first may start at a size that the witness is past, the next one knows better."""

Reason = Literal["unreachable", "refused", "unsound", "files"]


class Failed(Exception):
    """The witness did not cosign. ``reason`` is for the numbers (``gsb.metrics.UNCOSIGNED``)."""

    def __init__(self, reason: Reason, why: str) -> None:
        super().__init__(why)
        self.reason: Reason = reason


class Contradicted(Exception):
    """The witness has cosigned what this log cannot be, or cannot be any more. Says it in one line."""


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """A checkpoint that wants a cosignature."""

    log: Verifier
    note: bytes
    known: int
    """How many entries of the log have their places: a witness may have seen up to so many, and no more."""
    read: ReadTile
    """Reads the tiles of the log, at least of the checkpoint's size. May block."""
    text: str
    checkpoint: Checkpoint

    @classmethod
    def of(cls, log: Verifier, note: bytes, known: int, read: ReadTile) -> Wanted:
        text = parse_note(note).text
        return cls(log, note, known, read, text, Checkpoint.parse(text))

    def root(self, size: int) -> bytes:
        """The root of the log's first entries, by its own tiles. Raises ValueError and OSError."""
        return tree_root(size, cut_from(self.read, self.checkpoint.size))


class Asking:
    """A witness at its address."""

    def __init__(self, url: str, verifier: Verifier) -> None:
        self._url, self.verifier = url, verifier
        self._sizes: dict[str, int] = {}
        """By origin: the size that it has cosigned, as far as is known."""

    async def cosign(self, http: aiohttp.ClientSession, wanted: Wanted) -> Signature | None:
        """Its cosignature, verified. None: it has cosigned a later checkpoint of this log, which is known here.

        Raises Failed and Contradicted.
        """
        origin, size = wanted.checkpoint.origin, wanted.checkpoint.size
        for _ in range(TRIES):
            old = self._sizes.get(origin, 0)
            if old > size:
                await self._is_ahead(http, wanted, old)
                return None
            proof = await asyncio.to_thread(_proof, old, wanted)
            body = Request(old, tuple(proof), wanted.note).encode()
            status, kind, answer = await self._call(http, "POST", ADD, body)
            if status == 200:
                signature = self._verified(wanted, answer)
                self._sizes[origin] = size
                return signature
            if status == 409 and kind == SIZE_TYPE and (has := _size(answer)) != old:
                self._sizes[origin] = has
            elif old and (status == 422 or (status == 409 and old == size)):
                await self._has_another_tree(http, wanted, old)
            else:
                raise Failed("refused", _refusal(status, origin))
        raise Failed("unsound", f"answers another size each time it is asked, now {self._sizes[origin]}")

    def _verified(self, wanted: Wanted, answer: bytes) -> Signature:
        try:
            signatures = parse_signatures(answer.decode())
            times = self.verifier.times(Note(wanted.text, signatures))
        except (NoteWrong, UnicodeDecodeError) as error:
            raise Failed("unsound", f"answers no cosignature: {error}") from error
        if not times:
            raise Failed("unsound", f"does not cosign with the key {self.verifier.vkey}")
        mine = [each for each in signatures if (each.name, each.key_id) == (self.verifier.name, self.verifier.key_id)]
        return mine[times.index(max(times))]

    async def _is_ahead(self, http: aiohttp.ClientSession, wanted: Wanted, has: int) -> None:
        if has > wanted.known:
            # What it said then may be over; forgotten, it is asked anew next time.
            del self._sizes[wanted.checkpoint.origin]
            said = f"has cosigned {has} entries of the log {wanted.checkpoint.origin}, and the store has {wanted.known}"
            await self._contradicts(http, wanted, said)

    async def _has_another_tree(self, http: aiohttp.ClientSession, wanted: Wanted, old: int) -> None:
        try:
            root = await asyncio.to_thread(_own_root, old, wanted)
        except (ProofWrong, ValueError, OSError) as error:
            raise Failed("files", f"cannot be shown that the log grew: its own files are wrong ({error})") from error
        said = f"has cosigned other entries of the log {wanted.checkpoint.origin}: its tree of {old} has not the root "
        await self._contradicts(http, wanted, said + root.hex())

    async def _contradicts(self, http: aiohttp.ClientSession, wanted: Wanted, said: str) -> None:
        """It says so; now let it show the checkpoint, which only the log's own key can have signed."""
        seen = await self.seen(http, wanted.log)
        if seen is None:
            errs = "if you know that it errs, take it out of log.witnesses"
            raise Contradicted(f"{said}; it does not show the checkpoint itself ({errs})")
        if seen.size <= wanted.checkpoint.size:
            try:
                ours = await asyncio.to_thread(wanted.root, seen.size)
            except (ValueError, OSError) as error:
                raise Failed("files", f"{said}, which cannot be compared: {error}") from error
            if ours == seen.root:
                raise Failed("unsound", f"{said}, but it shows a checkpoint of {seen.size} entries that agrees")
        elif seen.size <= wanted.known:
            raise Failed("unsound", f"{said}, but it shows a checkpoint of {seen.size} entries")
        raise Contradicted(f"{said}; it shows a checkpoint of {seen.size} entries, signed with the log's own key")

    async def seen(self, http: aiohttp.ClientSession, log: Verifier) -> Checkpoint | None:
        """The newest checkpoint that it shows of this log, verified with the log's key; None if it shows none."""
        try:
            status, _, answer = await self._call(http, "GET", seen_path(log.name), None)
            return open_checkpoint(answer, log) if status == 200 else None
        except (Failed, NoteWrong):
            return None

    async def _call(
        self, http: aiohttp.ClientSession, method: str, path: str, body: bytes | None
    ) -> tuple[int, str, bytes]:
        """Status, content type and body. Raises Failed."""
        try:
            async with (
                asyncio.timeout(WITHIN),
                http.request(method, f"{self._url}/{path}", data=body, allow_redirects=False) as answer,
            ):
                content = bytearray()
                async for chunk in answer.content.iter_any():
                    content += chunk
                    if len(content) > ANSWER_LIMIT:
                        raise Failed("unsound", f"answers more than {ANSWER_LIMIT} bytes")
                return answer.status, answer.headers.get("Content-Type", ""), bytes(content)
        except TimeoutError as error:
            raise Failed("unreachable", f"does not answer within {WITHIN:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Failed("unreachable", f"cannot be reached: {error}") from error


async def seen_of(log: Verifier, witnesses: Iterable[WitnessTable]) -> Sequence[Checkpoint]:
    """What these witnesses show of a log, as far as they can be reached."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        asking = [Asking(each.url, Verifier.of(each.key)) for each in witnesses]
        found = await asyncio.gather(*(each.seen(http, log) for each in asking))
    return [each for each in found if each is not None]


def _size(answer: bytes) -> int:
    try:
        return parse_size(answer)
    except NoteWrong as error:
        raise Failed("unsound", f"answers no size: {error}") from error


def _refusal(status: int, origin: str) -> str:
    match status:
        case 404:
            return f"does not know the log {origin}: give whoever runs it the log's verifier key"
        case 403:
            return f"does not know the key of the log {origin}: give whoever runs it the log's verifier key"
        case _:
            return f"answers {status}"


def _proof(old: int, wanted: Wanted) -> Sequence[bytes]:
    try:
        return consistency(old, wanted.checkpoint.size, wanted.read)
    except (ValueError, OSError) as error:
        raise Failed("files", f"cannot be shown that the log grew: its own files cannot be read ({error})") from error


def _own_root(old: int, wanted: Wanted) -> bytes:
    """The root of the log's first entries by its own tiles, after these were seen to make the checkpoint."""
    root = wanted.root(old)
    proof = consistency(old, wanted.checkpoint.size, wanted.read)
    check_consistency(old, root, wanted.checkpoint.size, wanted.checkpoint.root, proof)
    return root
