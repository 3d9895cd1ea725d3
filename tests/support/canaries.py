"""Personal values that are planted into calls, and the search for them and for their digests in whatever is written.

A value may be anything a caller, a core system or an operator sends. It is looked for as it is, in base64, and as what
an unsalted SHA-256 of it looks like in every form in which one is written: whoever guesses the value could confirm
it by that digest, so it is as good as the value.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from gsb import jws
from tests.support.deployment import BUS
from tests.support.node import Reachable

_numbers = itertools.count(1)


@dataclass
class Planted:
    """What was planted, by what it is."""

    values: dict[bytes, str] = field(default_factory=dict)

    def text(self, what: str) -> str:
        """A new value that stands nowhere else."""
        return self.keep(what, f"canary-{what}-{next(_numbers):03}-{'q7w3' * 4}")

    def person(self) -> str:
        """A new identifier of a person, in the form of the registry's."""
        return self.keep("person", f"P-{7_000 + next(_numbers)}")

    def keep(self, what: str, value: str) -> str:
        self.values[value.encode()] = what
        return value

    def needles(self) -> list[tuple[bytes, str]]:
        """Every form in which a value would give it away, and what was found if it is there."""
        return [(form, f"{what}, {kind}") for value, what in self.values.items() for kind, form in forms(value)]

    def found(self, written: Mapping[str, bytes]) -> list[tuple[str, str]]:
        """Where there is what must not be there, and what it is."""
        needles = self.needles()
        return [(where, what) for where, data in written.items() for needle, what in needles if needle in data]


def forms(value: bytes) -> Iterator[tuple[str, bytes]]:
    digest = hashlib.sha256(value).digest()
    yield "as it is", value
    yield "base64", base64.b64encode(value).rstrip(b"=")[:-1]
    yield "base64url", base64.urlsafe_b64encode(value).rstrip(b"=")[:-1]
    yield "digest", digest
    yield "digest in hex", digest.hex().encode()
    yield "digest in upper-case hex", digest.hex().upper().encode()
    yield "digest in base64", base64.b64encode(digest).rstrip(b"=")
    yield "digest in base64url", base64.urlsafe_b64encode(digest).rstrip(b"=")


@dataclass
class Caller:
    """Makes calls by hand, so that everything that is sent is known, and keeps what is answered."""

    node: Reachable
    planted: Planted
    refusals: list[bytes] = field(default_factory=list)
    """Bodies of answers that are problems."""
    headers: list[bytes] = field(default_factory=list)
    """Of all answers, but the signature: that is for its reader alone, and names its ``jti``."""

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        owner: str = "payroll",
        key: str | None = None,
        prefer: str | None = None,
        operations: bool = False,
        signed_body: bytes | None = None,
        **claims: Any,
    ) -> tuple[int, Any]:
        """One signed call; ``claims`` go to the signature alone, as does ``signed_body``. Status and body."""
        data = b"" if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
        url = (self.node.operations_url if operations else self.node.url) + path
        said: dict[str, Any] = {
            "issuer": owner,
            "audience": BUS,
            "method": method,
            "target_uri": url,
            "body": data if signed_body is None else signed_body,
            "content_type": "application/json" if data else None,
            "idempotency_key": key,
            "jti": self.planted.text("jti"),
            "now": time.time(),
        } | claims
        token = self.planted.keep("jws", jws.sign_request(self.node.deployment.key(owner), **said))
        if data:
            self.planted.values[data] = "request"
        headers = {"GSB-Signature": token, "Idempotency-Key": key, "Prefer": prefer}
        if data:
            headers["Content-Type"] = "application/json"
        return await self.unsigned(method, url, data, {name: each for name, each in headers.items() if each})

    async def unsigned(self, method: str, url: str, data: bytes, headers: Mapping[str, str]) -> tuple[int, Any]:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, data=data or None, headers=headers, allow_redirects=False) as answer,
        ):
            content = await answer.read()
            self.headers += [f"{n}: {v}".encode() for n, v in answer.headers.items() if n != "GSB-Signature"]
            if answer.status >= 400:
                self.refusals.append(content)
            elif "GSB-Signature" in answer.headers and path_of(url).startswith("/services/"):
                self.planted.values[content] = "reply"
            return answer.status, orjson.loads(content) if "json" in answer.headers.get("Content-Type", "") else content

    async def act(self, method: str, path: str, body: Any = None, *, owner: str = "olive") -> tuple[int, Any]:
        """One administrative act."""
        return await self.send(method, path, body, owner=owner, operations=True)


def path_of(url: str) -> str:
    return "/" + url.partition("://")[2].partition("/")[2]
