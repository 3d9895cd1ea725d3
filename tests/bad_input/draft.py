"""One right call, taken apart so far that any part of it can be spoilt before it is signed, or after."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gsb.jwk import PrivateKey, to_base64url
from gsb.jws import REQUEST_TYPE, content_digest

GONE = object()
"""As the value of a claim or member: leave it out."""
Value = Any
"""A value, ``GONE``, or a function from the current time to one."""


def same(what: Any) -> Any:
    return what


def text_of(value: Any) -> bytes:
    """JSON as a careless client writes it: NaN and lone surrogates too."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


@dataclass
class Draft:
    """A call that would be answered rightly if nobody touched it.

    The claims follow from what is sent; ``claims`` and ``jose`` say what is signed instead. ``jose_text``,
    ``claims_text``, ``token_text`` and ``message`` change what was made, one step later each.
    """

    port: int
    base_url: str
    method: str
    target: str
    issuer: str
    audience: str
    signer: PrivateKey
    now: int
    jti: str
    body: bytes = b""
    key: str | None = None
    headers: dict[str, list[bytes]] = field(default_factory=dict)
    """Beside Host, Connection, Content-Length and the signature, which stand unless named here."""
    said: dict[str, Any] = field(default_factory=dict)
    """``purpose``, ``sub`` and ``case``."""
    claims: dict[str, Value] = field(default_factory=dict)
    jose: dict[str, Value] = field(default_factory=dict)
    jose_text: Callable[[bytes], bytes] = same
    claims_text: Callable[[bytes], bytes] = same
    token_text: Callable[[str], str] = same
    message: Callable[[bytes], bytes] = same

    def token(self) -> str:
        """The JWS as it is sent. The same each time for a deterministic algorithm; with ES256 only the claims are."""
        jose = {"alg": self.signer.algorithm, "kid": self.signer.kid, "typ": REQUEST_TYPE}
        first = to_base64url(self.jose_text(text_of(self._changed(jose, self.jose))))
        second = to_base64url(self.claims_text(text_of(self._changed(self._plain(), self.claims))))
        signed = f"{first}.{second}"
        return self.token_text(f"{signed}.{to_base64url(self.signer.sign(signed.encode()))}")

    def _plain(self) -> dict[str, Any]:
        kind = self.headers.get("Content-Type")
        return {
            "iss": self.issuer,
            "aud": self.audience,
            "iat": self.now,
            "exp": self.now + 60,
            "jti": self.jti,
            "method": self.method,
            "target_uri": self.base_url + self.target,
            "content_digest": content_digest(self.body),
            "content_type": kind[0].decode("latin-1") if kind and self.body else GONE,
            "idempotency_key": GONE if self.key is None else self.key,
            **self.said,
        }

    def _changed(self, plain: dict[str, Any], changes: dict[str, Value]) -> dict[str, Any]:
        merged = {name: value(self.now) if callable(value) else value for name, value in (plain | changes).items()}
        return {name: value for name, value in merged.items() if value is not GONE}

    def render(self) -> tuple[str, bytes]:
        """The JWS and the whole message, as it goes over the socket."""
        token = self.token()
        headers: dict[str, list[bytes]] = {
            "Host": [b"bus.test"],
            "Connection": [b"close"],
            "Content-Length": [b"%d" % len(self.body)] if self.body or self.method == "POST" else [],
            "Idempotency-Key": [] if self.key is None else [b'"%b"' % self.key.encode()],
            "GSB-Signature": [token.encode("utf-8", "surrogatepass")],
            **self.headers,
        }
        lines = [f"{self.method} {self.target} HTTP/1.1".encode("utf-8", "surrogateescape")]
        lines += [name.encode() + b": " + value for name, values in headers.items() for value in values]
        return token, self.message(b"\r\n".join([*lines, b"", self.body]))


Spoil = Callable[[Draft], None]
"""What is done to a right draft."""


def claims(**changes: Value) -> Spoil:
    return lambda draft: draft.claims.update(changes)


def jose(**changes: Value) -> Spoil:
    return lambda draft: draft.jose.update(changes)


def header(name: str, *values: bytes) -> Spoil:
    """The header with these values, one line each; without any the header is left out."""
    return lambda draft: draft.headers.update({name: list(values)})


def put(**parts: Any) -> Spoil:
    """Any part of the draft."""

    def spoil(draft: Draft) -> None:
        for name, value in parts.items():
            setattr(draft, name, value)

    return spoil


def all_of(*spoils: Spoil) -> Spoil:
    def spoil(draft: Draft) -> None:
        for each in spoils:
            each(draft)

    return spoil


def body(data: Any) -> Spoil:
    """Sent and truly signed; JSON unless it is bytes already."""
    return put(body=data if isinstance(data, bytes) else text_of(data))


def twice(name: str, *, part: str = "claims_text") -> Spoil:
    """A second member of this name, of the same value, in the claims or the JOSE header."""

    def repeated(text: bytes) -> bytes:
        value = text_of(json.loads(text)[name])
        return b"{" + text_of(name) + b":" + value + b"," + text[1:]

    return put(**{part: repeated})
