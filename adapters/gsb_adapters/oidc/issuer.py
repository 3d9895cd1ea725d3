"""The issuer of tokens: its discovery document and keys, read when needed and kept for a while, and whether a JWT is a
genuine one of its own, meant for the bus and in force. PyJWT does the cryptography.

It asks nobody whether a token was revoked. Nothing outlives the process: after a crash everything is read again.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import jwt

from gsb.sdk import Broken, Clock, Http, HttpReply, Refused
from gsb_adapters.oidc.settings import OidcSettings
from gsb_adapters.rest import items, members

WELL_KNOWN = "/.well-known/openid-configuration"
PUBLIC = frozenset({"RSA", "EC", "OKP"})
"""Types of keys with a public half (RFC 7518, section 6.1; RFC 8037): a shared secret verifies nothing here."""
OPTIONS: Any = {
    "require": ["iss", "aud", "exp", "sub"],
    "enforce_minimum_key_length": True,
    **dict.fromkeys(("verify_exp", "verify_nbf", "verify_iat"), False),  # the time is judged by the adapter's clock
}

Document = dict[str, Any]


class Issuer:
    """One issuer. Calls that come at once wait for one reading of its keys."""

    def __init__(self, settings: OidcSettings, http: Http, clock: Clock) -> None:
        self._settings, self._http, self._clock = settings, http, clock
        self._document: Document = {}
        self._document_until = float("-inf")
        self._keys: dict[str, Document] = {}
        self._keys_read = float("-inf")
        self._reading = asyncio.Lock()

    async def ask(self, method: str, name: str, headers: Mapping[str, str], data: bytes | None = None) -> HttpReply:
        """Ask at an address of the discovery document, which is known by its name there (OpenID Connect Discovery 1.0,
        sections 3 and 4.3). Raises Unavailable and Broken."""
        if self._clock.steady() >= self._document_until:
            found = read(await self._send("GET", self._settings.name.rstrip("/") + WELL_KNOWN, {}))
            if found.get("issuer") != self._settings.name:
                raise Broken("the discovery document is another issuer's")
            self._document, self._document_until = found, self._clock.steady() + self._settings.keep
        return await self._send(method, self._document.get(name), headers, data)

    async def _send(self, method: str, url: Any, headers: Mapping[str, str], data: bytes | None = None) -> HttpReply:
        reached = self._settings.reached(url) if isinstance(url, str) else None
        if reached is None:
            raise Broken("an address of the issuer is missing, or neither HTTPS nor loopback")
        # Where the issuer is reached by another address, it is still asked by its own (RFC 9110, section 7.2).
        asked = {**headers, "Host": urlsplit(url).netloc}
        return await self._http.request(method, reached, data=data, headers=asked)

    async def claims(self, token: str) -> Document:
        """What a JWT says, once it is verified (RFC 7519, section 7.2; OpenID Connect Core, section 3.1.3.7).

        Raises Refused: then it is worth nothing here. Unavailable and Broken if the keys cannot be had.
        """
        # 1. Signed as the deployment allows: never as the token, or the issuer's document, says that it may be.
        header = header_of(token)
        if header is None:
            raise Refused("token_invalid", "no JWT")
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in self._settings.algorithms:
            raise Refused("algorithm_invalid")
        # 2. The issuer's key of that id, for that algorithm if the key names one.
        key = await self._key(kid) if isinstance(kid, str) else None
        if key is None or key.get("alg", algorithm) != algorithm:
            raise Refused("token_invalid", "no such key")
        # 3. Signature, issuer and audience.
        expected: dict[str, Any] = {"audience": self._settings.meant_for, "issuer": self._settings.name}
        try:
            public = jwt.PyJWK.from_dict(key, algorithm=algorithm)
            claims: Document = jwt.decode(token, public, algorithms=[algorithm], options=OPTIONS, **expected)
        except jwt.InvalidAudienceError as error:
            raise Refused("audience_invalid") from error
        except (jwt.PyJWTError, ValueError, TypeError) as error:  # the last two are a key that is none
            raise Refused("token_invalid", type(error).__name__) from error
        # 4. The time.
        if not self.in_time(claims):
            raise Refused("token_expired")
        return claims

    def in_time(self, claims: Mapping[str, Any]) -> bool:
        """Whether it is after ``nbf`` and ``iat`` and before ``exp``, as far as they are there. They are numbers of
        seconds, and some issuers write fractions too (RFC 7519, section 2: NumericDate)."""
        now, leeway = self._clock.now(), self._settings.leeway
        try:
            begins = [float(claims[name]) for name in ("nbf", "iat") if name in claims]
            # A NaN is never before or after anything, so it is never in time.
            return all(each <= now + leeway for each in begins) and float(claims.get("exp", "inf")) > now - leeway
        except (TypeError, ValueError, OverflowError):
            return False

    async def _key(self, kid: str) -> Document | None:
        """The public key of this id as a JWK; None if the issuer has none. A key that is not known may be new, so the
        keys are read again, but no more often than the settings allow: ids are chosen by whoever writes a token."""
        async with self._reading:
            age = self._clock.steady() - self._keys_read
            if age >= self._settings.keep or (kid not in self._keys and age >= self._settings.pace):
                found = items(read(await self.ask("GET", "jwks_uri", {})), "keys")
                self._keys = {each["kid"]: each for each in found if _verifies(each)}
                self._keys_read = self._clock.steady()
            return self._keys.get(kid)


def header_of(token: str) -> Mapping[str, Any] | None:
    """The header of a JWT, which nobody has verified; None for any other token, which only its issuer can read."""
    try:
        return jwt.get_unverified_header(token)
    except (jwt.InvalidTokenError, RecursionError):
        return None


def belongs(claims: Mapping[str, Any], id_token: str, access_token: str) -> bool:
    """Whether a verified ID token was issued with this access token, if it says so: ``at_hash`` (OpenID Connect Core,
    section 3.1.3.6)."""
    if "at_hash" not in claims:
        return True
    algorithm = str((header_of(id_token) or {}).get("alg"))
    digest = hashlib.new("sha512" if algorithm == "EdDSA" else f"sha{algorithm[2:]}", access_token.encode()).digest()
    return bool(claims["at_hash"] == base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode())


def read(answer: HttpReply) -> Document:
    """The JSON object of an answer of the issuer. Raises Unavailable and Broken."""
    if answer.status != 200:
        raise answer.error()
    return members(answer.json())


def _verifies(key: Any) -> bool:
    named = isinstance(key, dict) and isinstance(key.get("kid"), str)
    return named and key.get("kty") in PUBLIC and key.get("use", "sig") == "sig"
