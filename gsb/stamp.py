"""Time-stamps (RFC 3161): an authority says that a checkpoint existed by a certain time, for proof that outlives keys.

A time-stamp covers the note as it was published, cosignatures included; both lie in ``timestamps/<log>/<size>.tsr`` and
``.checkpoint`` beside the logs, and cannot be made again. Nothing waits for one: an authority that fails is asked again
later. A crash loses at most a token that was not written yet. What the authority says is signed, so how it is reached
does not matter; the package ``rfc3161-client`` verifies it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import aiohttp
from cryptography.x509 import Certificate, load_pem_x509_certificates

from gsb.config import TimestampTable
from gsb.errors import StoreUnavailable
from gsb.evidence.checkpoint import NoteWrong, Verifier, open_checkpoint
from gsb.evidence.log import Files
from gsb.evidence.verify import LogWrong
from gsb.store.logs import LogState, LogStore
from gsb.trouble import Trouble

with suppress(ImportError):  # It is an extra; ``gsb check`` tells where it is wanted and missing.
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder, VerifierBuilder, decode_timestamp_response
    from rfc3161_client.errors import VerificationError

log = logging.getLogger("gsb.stamp")

FOLDER = "timestamps"
INSTALLED = find_spec("rfc3161_client") is not None
WITHIN = 30.0
"""Seconds for an answer of the authority."""
ANSWER_LIMIT = 65_536
"""Bytes of an answer."""
LOOK = 2.0
"""Seconds between two looks whether a time-stamp is due."""
AGAIN = 300.0
"""Seconds after which an authority that failed is asked again."""


class StampWrong(ValueError):
    """A token that does not prove that the note existed, or an authority that gives none."""


def read_certificates(path: Path) -> Sequence[Certificate]:
    """The authority's certificates. Raises ValueError and OSError."""
    return load_pem_x509_certificates(path.read_bytes())


def check_stamp(token: bytes, note: bytes, authority: Sequence[Certificate], nonce: int | None = None) -> datetime:
    """When the note existed, by a token that one of the authority's roots vouches for. Raises StampWrong.

    Certificates need to be valid at that time only. RFC 3161, section 2.4.2, and RFC 5816.
    """
    builder = VerifierBuilder() if nonce is None else VerifierBuilder().nonce(nonce)
    for each in authority:
        at_the_root = each.issuer == each.subject
        builder = (builder.add_root_certificate if at_the_root else builder.add_intermediate_certificate)(each)
    try:
        response = decode_timestamp_response(token)
        builder.build().verify(response, sha256(note).digest())
        return response.tst_info.gen_time
    except (VerificationError, ValueError) as error:
        raise StampWrong(str(error)) from error


class Stamper:
    """Has the logs of a bus time-stamped. ``clock``: seconds since 1970; ``steady``: seconds that only grow."""

    def __init__(
        self,
        store: LogStore,
        folder: Path,
        table: TimestampTable,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """``folder``: that of the logs. Raises ValueError and OSError when the certificates cannot be read."""
        self._store, self._table, self._clock, self._steady = store, table, clock, steady
        self._folder, self._files = folder / FOLDER, Files(folder / FOLDER)
        self._authority = read_certificates(table.certificates)
        self._not_before = steady()
        self._failing = Trouble(log, "checkpoints are time-stamped again", steady)

    async def run(self, held: Callable[[], bool] = lambda: True) -> None:
        """Until cancelled; nothing is done while ``held`` says that it is another node's duty."""
        while True:
            if held():
                await self.look()
            await asyncio.sleep(LOOK)

    async def look(self) -> None:
        """Have every log stamped that is due. What goes wrong is told, and tried again after a while."""
        if self._steady() < self._not_before:
            return
        try:
            for state in await self._store.logs():
                if await asyncio.to_thread(self._is_due, state):
                    await self._stamp(state)
        except (StampWrong, aiohttp.ClientError, OSError, TimeoutError, StoreUnavailable) as error:
            why = str(error) or type(error).__name__
            self._failing.is_there(f"no time-stamp from {self._table.url}: {why}; it is asked again every few minutes")
            self._not_before = self._steady() + AGAIN
        else:
            self._failing.is_over()

    def _is_due(self, state: LogState) -> bool:
        if not state.published or self._files.read(f"{_place(state)}.tsr") is not None:
            return False
        stamped = [each.stat().st_mtime for each in (self._folder / _name(state)).glob("*.tsr")]
        age = self._clock() - max(stamped, default=0.0)
        # A closed log is stamped as it ended, whenever it was stamped before; a clock that was set back stamps anew.
        return state.closed or not 0 <= age < self._table.every

    async def _stamp(self, state: LogState) -> None:
        note = state.published_note
        request = TimestampRequestBuilder().data(note).hash_algorithm(HashAlgorithm.SHA256).build()
        token = await self._ask(request.as_bytes())
        at = check_stamp(token, note, self._authority, request.nonce)
        place = _place(state)
        await asyncio.to_thread(self._files.write, {f"{place}.checkpoint": note, f"{place}.tsr": token})
        facts = {"log": state.origin, "size": state.published, "time": at.isoformat()}
        log.info("a checkpoint is time-stamped", extra={"facts": facts})

    async def _ask(self, request: bytes) -> bytes:
        """RFC 3161, section 3.4."""
        headers = {"Content-Type": "application/timestamp-query"}
        async with (
            asyncio.timeout(WITHIN),
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
            http.post(self._table.url, data=request, headers=headers, allow_redirects=False) as answer,
        ):
            content = bytearray()
            async for chunk in answer.content.iter_any():
                content += chunk
                if len(content) > ANSWER_LIMIT:
                    raise StampWrong(f"answers more than {ANSWER_LIMIT} bytes")
            if answer.status != 200:
                raise StampWrong(f"answers {answer.status}")
            return bytes(content)


def _name(state: LogState) -> str:
    return state.origin.rpartition("/")[2]


def _place(state: LogState) -> str:
    return f"{_name(state)}/{state.published}"


def verify_stamps(
    folder: Path, verifier: Verifier, authority: Sequence[Certificate], size: int, root: Callable[[int], bytes]
) -> Iterator[tuple[int, datetime]]:
    """Each time-stamped size of a log of this size, and when it existed; ``root`` tells the log's root at a size.

    Raises LogWrong for a token that proves nothing, for a checkpoint that the log does not extend, and when there is no
    token: whoever asks expects some.
    """
    tokens = sorted(folder.glob("*.tsr"), key=lambda path: (len(path.name), path.name))
    if not tokens:
        raise LogWrong(None, str(folder), "holds no time-stamp")
    for token in tokens:
        note = token.with_suffix(".checkpoint").read_bytes()
        try:
            at, stamped = check_stamp(token.read_bytes(), note, authority), open_checkpoint(note, verifier)
        except (StampWrong, NoteWrong) as error:
            raise LogWrong(None, token.name, str(error)) from error
        if stamped.size > size or root(stamped.size) != stamped.root:
            raise LogWrong(None, token.name, f"the log does not begin with the {stamped.size} entries that it stamped")
        yield stamped.size, at
