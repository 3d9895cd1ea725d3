"""One signed HTTP call and its verified answer: what the client repeats and follows.

Nothing here repeats, waits or decides; an answer that may not be believed is raised as such, never returned.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from multidict import CIMultiDictProxy
from yarl import URL

from gsb import jws
from gsb.errors import Fault
from gsb.jwk import KeyUnfit, PrivateKey, PublicKey, read_public
from gsb.model import FINAL, JSON_TYPE

REPLY_LIMIT = 16 * 1024 * 1024
"""Bytes of a reply that are read at most; the bus's own limit for bodies is 10 MiB."""
REFETCH = 60.0
"""Seconds for which fetched keys of the bus are not fetched again, whatever a reply says."""
KEYS_WITHIN = 10.0
"""Seconds that the bus's keys may take to come."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class ClientError(Exception):
    """Base of what a call can raise. ``requests`` counts its HTTP calls, ``idempotency_key`` is the one it used."""

    requests: int = 0
    idempotency_key: str | None = None


class Unreachable(ClientError):
    """There was no answer in time. The exchange may or may not have been accepted: call again with the same key."""


class ReplyUntrusted(ClientError):
    """There was an answer that must not be believed. It says nothing: call again with the same key."""


class OutcomePending(ClientError):
    """The exchange is accepted and has no outcome yet: ``follow`` it later."""

    def __init__(self, exchange: str, state: str | None) -> None:
        super().__init__(f"exchange {exchange} is {state or 'unfinished'}")
        self.exchange = exchange
        self.state = state


class ReceiptPending(ClientError):
    """The entry is durable, and no published checkpoint covers it yet: ask again later."""

    def __init__(self, exchange: str) -> None:
        super().__init__(f"no published checkpoint covers the entry of exchange {exchange}")
        self.exchange = exchange


class BusProblem(ClientError):
    """The answer is a problem (RFC 9457). It ends an exchange only if ``state`` is final.

    ``signed`` is False for what a bus says to a caller it does not know, and then it is only a hint.
    ``code`` is ``http_<status>`` if there is no problem document at all.
    """

    def __init__(self, result: Result) -> None:
        document = result.body if isinstance(result.body, dict) else {}
        self.code = str(document.get("code", f"http_{result.status}"))
        super().__init__(f"{result.status} {self.code}: {document.get('detail', '')}".rstrip(": "))
        self.status = result.status
        self.origin = document.get("origin")
        self.title = document.get("title")
        self.detail = document.get("detail")
        errors = document.get("errors")
        self.pointers = tuple(
            Fault(str(each.get("pointer", "")), str(each.get("detail", "")))
            for each in (errors if isinstance(errors, list) else ())
            if isinstance(each, dict)
        )
        self.exchange, self.state, self.effect = result.exchange, result.state, result.effect
        self.signed = result.signed
        self.requests = result.requests
        self.result = result


@dataclass(frozen=True, slots=True)
class Result:
    """One verified answer."""

    status: int
    body: Any
    """Parsed JSON; bytes of what the bus signed as another type, such as a receipt; None when there is none."""
    exchange: str | None
    state: str | None
    effect: str | None
    """Once the state is final: none or done."""
    entry: str | None
    """Hash of the exchange's last entry in the evidence log, base64url."""
    replayed: bool
    """Whether the bus says that this is an earlier exchange's outcome; not signed."""
    headers: Mapping[str, str]
    """Not signed, but for Content-Type."""
    requests: int = 1
    """HTTP calls that it took."""
    signed: bool = True
    """False only for problems that the bus said to a caller it did not know."""

    @property
    def final(self) -> bool:
        return self.state in FINAL

    @property
    def retry_after(self) -> float:
        """Seconds to wait before asking again; 0 when the bus did not say."""
        text = self.headers.get("Retry-After", "")
        return float(text) if text.isascii() and text.isdigit() else 0.0


@dataclass(frozen=True, slots=True)
class Ask:
    """What one call says, but for what makes each signature new."""

    method: str
    target_uri: str
    body: bytes = b""
    idempotency_key: str | None = None
    purpose: str | None = None
    sub: str | None = None
    case: str | None = None
    wait: int | None = None
    """Seconds that the bus is asked to wait for an outcome at most; None: nothing is said of it."""
    respond_async: bool = False

    @property
    def content_type(self) -> str | None:
        return JSON_TYPE if self.body else None

    def headers(self, token: str) -> dict[str, str]:
        named = {
            "GSB-Signature": token,
            "Accept-Encoding": "identity",
            "Content-Type": self.content_type,
            "Idempotency-Key": None if self.idempotency_key is None else f'"{self.idempotency_key}"',
            "Prefer": self._prefer,
        }
        return {name: value for name, value in named.items() if value is not None}

    @property
    def _prefer(self) -> str | None:
        if self.respond_async:
            return "respond-async"
        return None if self.wait is None else f"wait={self.wait}"

    def sign(self, key: PrivateKey, issuer: str, audience: str, now: float) -> str:
        """A fresh signature, with a new jti, that is valid for 60 seconds from ``now``."""
        return jws.sign_request(
            key,
            issuer=issuer,
            audience=audience,
            method=self.method,
            target_uri=self.target_uri,
            body=self.body,
            content_type=self.content_type,
            idempotency_key=self.idempotency_key,
            purpose=self.purpose,
            sub=self.sub,
            case=self.case,
            now=now,
            jti=secrets.token_urlsafe(16),
        )


class BusKeys:
    """The bus's public keys: given, or fetched once and again when a reply does not verify."""

    def __init__(self, base_url: str, given: Mapping[str, PublicKey] | None) -> None:
        url = URL(base_url)
        if given is None and url.scheme != "https" and url.host not in LOOPBACK:
            raise ValueError(f"the keys of {base_url} can be trusted only over TLS or loopback: give them")
        self._url = f"{base_url}/.well-known/jwks.json"
        self._given = given is not None
        self._keys: Mapping[str, PublicKey] = given or {}
        self._fetched_at: float | None = None

    async def current(self, session: aiohttp.ClientSession) -> Mapping[str, PublicKey]:
        if not self._given and self._fetched_at is None:
            await self._fetch(session)
        return self._keys

    async def renewed(
        self, session: aiohttp.ClientSession, known: Mapping[str, PublicKey]
    ) -> Mapping[str, PublicKey] | None:
        """Other keys than the ``known`` ones: fetched since by another call, or anew. None if they are given, or were
        fetched less than a minute ago."""
        if self._keys is not known:
            return self._keys
        if self._given or (self._fetched_at is not None and time.monotonic() - self._fetched_at < REFETCH):
            return None
        await self._fetch(session)
        return self._keys

    async def _fetch(self, session: aiohttp.ClientSession) -> None:
        try:
            async with session.get(
                self._url, allow_redirects=False, timeout=aiohttp.ClientTimeout(total=KEYS_WITHIN)
            ) as response:
                if response.status != 200:
                    raise ReplyUntrusted(f"no keys of the bus: status {response.status}")
                document = orjson.loads(await _read(response))
            self._keys = {key.kid: key for each in document["keys"] if (key := _usable(each)) is not None}
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"no keys of the bus: {self._url}: {_reason(error, KEYS_WITHIN)}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ReplyUntrusted("the bus's keys are not a JWK set") from error
        self._fetched_at = time.monotonic()


def _reason(error: Exception, timeout: float) -> str:
    """Why there was no answer, for people."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "the host's name is not known"
        case TimeoutError():
            return f"no answer within {timeout:.3g} s"
        case aiohttp.ClientConnectorCertificateError():
            return "the server's certificate cannot be trusted"
        case aiohttp.ClientSSLError():
            return "no TLS connection could be made"
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed without an answer"
        case OSError(errno=int(number)) if number > 0:
            return os.strerror(number)
        case _:
            return type(error).__name__


def _usable(document: Any) -> PublicKey | None:
    try:
        return read_public(orjson.dumps(document))
    except KeyUnfit:
        return None  # A kind of key that this version does not know must not hide those that it does.


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(65_536):
        body += chunk
        if len(body) > REPLY_LIMIT:
            raise ReplyUntrusted(f"the reply is larger than {REPLY_LIMIT} bytes")
    return bytes(body)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came back for a signature, not yet believed."""

    token: str
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


class Sender:
    """Signs as one agency or operator, sends to one bus, and believes only what that bus signed for this very call."""

    def __init__(
        self, *, bus: str, agency: str, key: PrivateKey, bus_keys: BusKeys, clock: Callable[[], float]
    ) -> None:
        self._bus, self._agency, self._key = bus, agency, key
        self._bus_keys = bus_keys
        self._clock = clock

    async def send(self, session: aiohttp.ClientSession, ask: Ask, timeout: float) -> Result:
        """One call with a fresh signature. Raises Unreachable after ``timeout`` seconds, and ReplyUntrusted.

        Problems are returned like other answers; an unsigned answer is returned only if it is no success.
        """
        keys = await self._bus_keys.current(session)
        token = self._sign(ask)
        try:
            async with session.request(
                ask.method,
                URL(ask.target_uri, encoded=True),  # as it was signed, byte for byte
                data=ask.body or None,
                headers=ask.headers(token),
                skip_auto_headers=("Content-Type",),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout),
            ) as response:
                answer = _Answer(token, response.status, response.headers, await _read(response))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            where = ask.target_uri.partition("?")[0]
            raise Unreachable(f"{ask.method} {where}: {_reason(error, timeout)}") from error
        return await self._believed(session, keys, answer)

    def _sign(self, ask: Ask) -> str:
        return ask.sign(self._key, self._agency, self._bus, self._clock())

    async def _believed(self, session: aiohttp.ClientSession, keys: Mapping[str, PublicKey], answer: _Answer) -> Result:
        signatures = answer.headers.getall("GSB-Signature", [])
        if not signatures and answer.status >= 300:
            return _result(answer, None)
        if len(signatures) != 1:
            raise ReplyUntrusted(f"the reply carries {len(signatures)} signatures")
        try:
            claims = self._verified(signatures[0], keys, answer)
        except jws.ReplyRefused as refused:
            renewed = await self._bus_keys.renewed(session, keys)
            if renewed is None:
                raise ReplyUntrusted(refused.reason) from refused
            try:
                claims = self._verified(signatures[0], renewed, answer)
            except jws.ReplyRefused as again:
                raise ReplyUntrusted(again.reason) from again
        return _result(answer, claims)

    def _verified(self, signature: str, keys: Mapping[str, PublicKey], answer: _Answer) -> jws.ReplyClaims:
        return jws.verify_reply(
            signature,
            keys,
            bus=self._bus,
            caller=self._agency,
            request_jws=answer.token,
            status=answer.status,
            body=answer.body,
            content_type=answer.headers.get("Content-Type"),
            now=self._clock(),
        )


def _body(answer: _Answer, *, signed: bool) -> Any:
    media_type = answer.headers.get("Content-Type", "").partition(";")[0]
    if signed and answer.body and not media_type.endswith("json"):
        return answer.body
    try:
        return orjson.loads(answer.body) if answer.body else None
    except ValueError:
        if signed:
            raise ReplyUntrusted("the reply is signed as JSON and is none") from None
        return None


def _result(answer: _Answer, claims: jws.ReplyClaims | None) -> Result:
    return Result(
        status=answer.status,
        body=_body(answer, signed=claims is not None),
        exchange=claims.exchange if claims else None,
        state=claims.state if claims else None,
        effect=claims.effect if claims else None,
        entry=claims.entry if claims else None,
        replayed=answer.headers.get("Idempotent-Replayed") == "true",
        headers=answer.headers,
        signed=claims is not None,
    )
