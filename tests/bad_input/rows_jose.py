"""The JOSE header of a request and the form of its JWS, row by row as the wire profile has them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator
from typing import Any

from gsb.jwk import from_base64url, generate, read_private, to_base64url
from tests.bad_input.case import Case, Step
from tests.bad_input.draft import GONE, Draft, Spoil, claims, jose, put, text_of, twice
from tests.bad_input.rows_claims import EVERY, NO_TEXT, Row, value
from tests.bad_input.stage import Stage

STRANGER = read_private(generate("ES256"))
"""A key that nobody registered."""


def hmac_with_public_key(draft: Draft) -> None:
    """The classic: the public key, which everybody has, as the secret of an HMAC."""
    secret = text_of(draft.signer.public.jwk)

    def forged(token: str) -> str:
        message = token.rpartition(".")[0]
        return f"{message}.{to_base64url(hmac.new(secret, message.encode(), hashlib.sha256).digest())}"

    draft.jose["alg"] = "HS256"
    draft.token_text = forged


JOSE = (
    Row(
        "alg",
        "signature_header_refused",
        NO_TEXT,
        (
            *(
                value(each or "empty", "algorithm_refused", alg=each)
                for each in ("", "none", "HS256", "RS256", "ES384")
            ),
            value("another case", "algorithm_refused", alg="es256"),
            value("that of another key", "algorithm_refused", alg="Ed25519"),
            value("its old name", "algorithm_refused", alg="EdDSA"),
            value("PS256 with an EC key", "algorithm_refused", alg="PS256"),
        ),
    ),
    Row(
        "kid",
        "signature_header_refused",
        NO_TEXT,
        (
            value("empty", "key_unknown", kid=""),
            value("of nobody", "key_unknown", kid="canary-kid"),
        ),
    ),
    Row(
        "typ",
        "signature_header_refused",
        NO_TEXT,
        tuple(
            value(each or "empty", "signature_type_refused", typ=each)
            for each in ("", "JWT", "gsb-res+jwt", "GSB-REQ+JWT", "application/gsb-req+jwt", "canary")
        ),
    ),
)
OTHER_MEMBERS: dict[str, Any] = {
    "crit": ["exp"],
    "b64": False,
    "jku": "https://canary.example/keys",
    "jwk": dict(STRANGER.public.jwk),
    "x5u": "https://canary.example/chain",
    "x5c": ["MIIB"],
}
"""Members that the page refuses by name; any other is refused too."""
UNNAMED_MEMBERS: dict[str, Any] = {"cty": "JWT", "zip": "DEF", "x5t": "canary", "enc": "A128GCM", "": 1, "Alg": "ES256"}


def member_cases(row: Row) -> Iterator[Case]:
    name = row.name
    for kind in EVERY:
        yield Case(name, "missing", "left out", jose(**{name: GONE}), row.missing, kind)
        yield Case(name, "duplicated", "the same twice", twice(name, part="jose_text"), "signature_malformed", kind)
        for wrong in row.types:
            yield Case(name, "type", text_of(wrong).decode(), jose(**{name: wrong}), "signature_header_refused", kind)
        for what, changes, code, _ in row.values:
            yield Case(name, "value", what, jose(**changes), code, kind)


def jose_cases() -> Iterator[Case]:
    for row in JOSE:
        yield from member_cases(row)
    for kind in EVERY:
        for name, content in (OTHER_MEMBERS | UNNAMED_MEMBERS).items():
            yield Case("other members", "value", name, jose(**{name: content}), "signature_header_refused", kind)
        yield Case("alg", "value", "an HMAC with the public key", hmac_with_public_key, "algorithm_refused", kind)
        for life, code in KEYS.items():
            yield Case("kid", "value", f"a key that is {life}", put(), code, kind, before=_signing_with(life))
        yield Case("kid", "value", "of another agency", put(), "key_unknown", kind, before=_kid_of_another)
        for what, spoil, code in FORMS:
            yield Case("GSB-Signature", "value", what, spoil, code, kind)


KEYS = {
    "announced": "key_not_active",
    "early": "key_not_active",
    "retired": "key_not_active",
    "revoked": "key_revoked",
}
"""Further keys of the caller by ``stage.KEY_LIVES``."""


def _signing_with(life: str) -> Step:
    async def step(stage: Stage, draft: Draft) -> None:
        draft.signer = stage.further_key(draft.issuer, life)

    return step


async def _kid_of_another(stage: Stage, draft: Draft) -> None:
    draft.jose["kid"] = stage.deployment.key("hrmis-agency").kid


def spoil_part(position: int, change: Callable[[str], str]) -> Spoil:
    def changed(token: str) -> str:
        parts = token.split(".")
        parts[position] = change(parts[position])
        return ".".join(parts)

    return put(token_text=changed)


def flipped(part: str) -> str:
    data = bytearray(from_base64url(part))
    data[0] ^= 1
    return to_base64url(bytes(data))


def in_der(part: str) -> str:
    """An ES256 signature in the form that most tools make unasked."""
    raw = from_base64url(part)
    numbers = b"".join(
        b"\x02\x21\x00" + half if half[0] >= 0x80 else b"\x02\x20" + half for half in (raw[:32], raw[32:])
    )
    return to_base64url(b"\x30" + bytes([len(numbers)]) + numbers)


def forged(draft: Draft) -> None:
    """Another key signs under the name of this one."""
    draft.jose["kid"] = draft.signer.kid
    draft.signer = STRANGER


FORMS: tuple[tuple[str, Spoil, str], ...] = (
    ("no JWS", put(token_text=lambda token: "canary"), "signature_malformed"),
    ("two parts", put(token_text=lambda token: token.rpartition(".")[0]), "signature_malformed"),
    ("four parts", put(token_text=lambda token: token + ".AA"), "signature_malformed"),
    ("a detached payload", spoil_part(1, lambda part: ""), "signature_malformed"),
    ("padding", put(token_text=lambda token: token + "=="), "signature_malformed"),
    ("a space inside", spoil_part(1, lambda part: part[:9] + " " + part[9:]), "signature_malformed"),
    ("standard base64", spoil_part(2, lambda part: "+/" + part[2:]), "signature_malformed"),
    ("two signatures in one header", put(token_text=lambda token: f"{token}, {token}"), "signature_malformed"),
    ("a JSON serialisation", put(token_text=lambda token: '{"payload":"canary"}'), "signature_malformed"),
    ("letters beyond ASCII", put(token_text=lambda token: token + "é"), "signature_malformed"),
    ("a header that is no JSON", put(jose_text=lambda text: b"canary"), "signature_malformed"),
    ("a header that is an array", put(jose_text=lambda text: b"[" + text + b"]"), "signature_malformed"),
    ("claims that are no JSON", put(claims_text=lambda text: b"canary"), "signature_malformed"),
    ("claims that are an array", put(claims_text=lambda text: b"[" + text + b"]"), "signature_malformed"),
    ("claims that are null", put(claims_text=lambda text: b"null"), "signature_malformed"),
    ("claims that are empty", put(claims_text=lambda text: b""), "signature_malformed"),
    ("claims behind a byte order mark", put(claims_text=lambda text: b"\xef\xbb\xbf" + text), "signature_malformed"),
    ("claims with NaN", claims(nbf=float("nan")), "signature_malformed"),
    ("claims in invalid UTF-8", put(claims_text=lambda text: text[:-1] + b',"x":"\xff"}'), "signature_malformed"),
    (
        "claims 65 deep",
        put(claims_text=lambda text: text[:-1] + b',"x":' + b"[" * 64 + b"]" * 64 + b"}"),
        "signature_malformed",
    ),
    ("8193 bytes", put(token_text=lambda token: token + "A" * (8193 - len(token))), "signature_too_large"),
    ("more than a header line may have", put(token_text=lambda token: token + "A" * 20_000), "bad_request"),
    ("an empty signature", spoil_part(2, lambda part: ""), "signature_invalid"),
    ("a signature with one bit changed", spoil_part(2, flipped), "signature_invalid"),
    ("a signature of another length", spoil_part(2, lambda part: part + "AAAA"), "signature_invalid"),
    ("a signature in DER", spoil_part(2, in_der), "signature_invalid"),
    ("a stranger's signature", forged, "signature_invalid"),
    (
        "claims changed after signing",
        spoil_part(1, lambda part: to_base64url(from_base64url(part) + b" ")),
        "signature_invalid",
    ),
)
