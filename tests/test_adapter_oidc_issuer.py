"""The adapter for digital identities against issuers that a real one cannot be made to be: other keys and algorithms,
documents of somebody else, answers that leave things out. Each is a real server on loopback.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gsb.sdk import Broken, Clock, Refused, Unavailable
from gsb_adapters.oidc import Oidc
from tests.support.adapters import opened, request
from tests.support.sockets import http, listening, read_request

TOKEN, VERIFY = "id/token/v1", "id/verify/v1"
NAME = "https://id.example"
NONCE = "nonce-of-this-log-in"
KEY = ec.generate_private_key(ec.SECP256R1())
ACTIVE = {"active": True, "aud": "gsb", "sub": "amina", "scope": "openid", "exp": 4_102_444_800.5}


def jwk(key: Any, algorithm: str, **more: Any) -> dict[str, Any]:
    """The public half."""
    return {**json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key())), "kid": "k1", **more}


@dataclass
class Played:
    """An issuer that says what it is told to say, by path; a pair is a status and an answer."""

    says: dict[str, Any] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    requests: list[bytes] = field(default_factory=list)
    url: str = ""

    def __post_init__(self) -> None:
        ways = ("jwks_uri", "introspection_endpoint", "userinfo_endpoint")
        document = {"issuer": NAME} | {name: f"{NAME}/{name}" for name in ways}
        self.says = {
            "/.well-known/openid-configuration": document,
            "/jwks_uri": {"keys": [jwk(KEY, "ES256")]},
            "/introspection_endpoint": ACTIVE,
            "/userinfo_endpoint": {"sub": "amina", "given_name": "Amina"},
        }

    def answer(self, asked: bytes) -> bytes:
        path = asked.split(b" ", 2)[1].decode()
        self.asked[path] += 1
        self.requests.append(asked)
        said = self.says[path]
        status, content, *headers = said if isinstance(said, tuple) else ("200 OK", said)
        return http(json.dumps(content).encode(), status, *headers)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(self.answer(await read_request(reader)))
            await writer.drain()


@pytest.fixture
async def played() -> AsyncIterator[Played]:
    issuer = Played()
    async with listening(issuer.talk) as listener:
        issuer.url = listener.url
        yield issuer


@asynccontextmanager
async def at(
    played: Played, folder: Path, *, steady: Any = None, claims: dict[str, str] | None = None, **more: Any
) -> AsyncIterator[Oidc]:
    (folder / "secret.txt").write_text("s3cr t/+")
    settings = {"url": played.url, "issuer": NAME, "loopback": True, "client": "gsb", "secret": "secret.txt"}
    verification = {"answers": "verification", "claims": claims or {}}
    services: dict[str, dict[str, Any]] = {TOKEN: {"answers": "introspection"}, VERIFY: verification}
    clock = Clock() if steady is None else Clock(steady=steady)
    async with opened(Oidc, settings | {"algorithms": ["ES256"]} | more, services, folder=folder, clock=clock) as oidc:
        yield oidc


def signed(key: Any = KEY, algorithm: str = "ES256", kid: str = "k1", **claims: Any) -> str:
    whole = {"iss": NAME, "aud": "gsb", "sub": "amina", "exp": time.time() + 60, "nonce": NONCE} | claims
    return jwt.encode(whole, key, algorithm=algorithm, headers={"kid": kid})


async def verify(oidc: Oidc, **body: Any) -> Any:
    return (await oidc.handle(request(VERIFY, body))).body


async def code(oidc: Oidc, **body: Any) -> str:
    with pytest.raises(Refused) as raised:
        await verify(oidc, **body)
    return raised.value.code


# --- its document


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://id.elsewhere.example"},
        {"issuer": NAME + "/"},
        {"issuer": None},
        {"introspection_endpoint": "http://id.example/introspection_endpoint", "issuer": NAME},
        {"introspection_endpoint": "http://127.0.0.1.example/x"},
        {"introspection_endpoint": "ftp://127.0.0.1/x"},
        {"introspection_endpoint": "https://[bad"},
        {"introspection_endpoint": 7},
        {"introspection_endpoint": None},
    ],
    ids=str,
)
async def test_a_document_of_somebody_else_or_an_open_way_is_broken(
    played: Played, tmp_path: Path, document: dict[str, Any]
) -> None:
    played.says["/.well-known/openid-configuration"] |= document
    async with at(played, tmp_path) as oidc:
        with pytest.raises(Broken):
            await oidc.check()
    assert played.asked == {"/.well-known/openid-configuration": 1}  # the secret went nowhere


async def test_documents_are_kept_for_a_while_and_answers_about_tokens_never(played: Played, tmp_path: Path) -> None:
    passed = [0.0]
    async with at(played, tmp_path, steady=lambda: passed[0], keep=600) as oidc:
        await asyncio.gather(*(verify(oidc, access_token=signed()) for _ in range(8)))
        read = {"/jwks_uri": 1, "/introspection_endpoint": 8}
        assert {name: played.asked[name] for name in read} == read
        before = played.asked["/.well-known/openid-configuration"]
        passed[0] = 599.0
        await verify(oidc, access_token=signed())
        assert played.asked["/.well-known/openid-configuration"] == before
        passed[0] = 601.0
        await verify(oidc, access_token=signed())
        assert played.asked["/.well-known/openid-configuration"] == before + 1
        assert played.asked["/jwks_uri"] == 2


async def test_unknown_keys_do_not_have_the_keys_read_without_end(played: Played, tmp_path: Path) -> None:
    passed = [0.0]
    async with at(played, tmp_path, steady=lambda: passed[0], pace=30) as oidc:
        for second in range(61):
            passed[0] = float(second)
            assert await code(oidc, id_token=signed(kid=f"k{second + 2}"), nonce=NONCE) == "token_invalid"
    assert played.asked["/jwks_uri"] == 3


async def test_a_reading_that_fails_is_no_refusal(played: Played, tmp_path: Path) -> None:
    played.says["/jwks_uri"] = ("503 Busy", {}, "Retry-After: 7")
    async with at(played, tmp_path) as oidc:
        with pytest.raises(Unavailable) as raised:
            await verify(oidc, id_token=signed(), nonce=NONCE)
        assert raised.value.after == 7
        played.says["/jwks_uri"] = {"keys": "none"}
        with pytest.raises(Broken):
            await verify(oidc, id_token=signed(), nonce=NONCE)
        played.says["/jwks_uri"] = {"keys": [jwk(KEY, "ES256")]}
        await verify(oidc, id_token=signed(), nonce=NONCE)


# --- its keys


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (rsa.generate_private_key(public_exponent=65537, key_size=2048), "PS256"),
        (rsa.generate_private_key(public_exponent=65537, key_size=3072), "RS384"),
        (KEY, "ES256"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
    ],
    ids=["PS256", "RS384", "ES256", "EdDSA"],
)
async def test_another_issuer_is_configuration(played: Played, tmp_path: Path, key: Any, algorithm: str) -> None:
    played.says["/jwks_uri"] = {"keys": [jwk(key, algorithm, alg=algorithm, use="sig")]}
    async with at(played, tmp_path, algorithms=[algorithm], audience="government") as oidc:
        assert await verify(oidc, id_token=signed(key, algorithm, aud="government"), nonce=NONCE)
        assert await code(oidc, id_token=signed(key, algorithm), nonce=NONCE) == "audience_invalid"


SHORT = rsa.generate_private_key(public_exponent=65537, key_size=1024)
UNFIT: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "a key for encryption": (KEY, "ES256", jwk(KEY, "ES256", use="enc")),
    "a key for another algorithm": (KEY, "ES256", jwk(KEY, "ES256", alg="ES384")),
    "a key of another type": (KEY, "ES256", jwk(SHORT, "RS256")),
    "a shared secret": (KEY, "ES256", {"kty": "oct", "k": "c2VjcmV0", "kid": "k1"}),
    "a key without a name": (KEY, "ES256", {**jwk(KEY, "ES256"), "kid": None}),
    "half a key": (KEY, "ES256", {**jwk(KEY, "ES256"), "y": ""}),
    "a key of numbers": (KEY, "ES256", {**jwk(KEY, "ES256"), "x": 7}),
    "a key that is no base64url": (KEY, "ES256", {**jwk(KEY, "ES256"), "x": "ä"}),
    "a key that no arithmetic allows": (SHORT, "RS256", {**jwk(SHORT, "RS256"), "e": "Ag"}),
    "a short key": (SHORT, "RS256", jwk(SHORT, "RS256")),
}


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")  # in making the token
@pytest.mark.parametrize(("key", "algorithm", "published"), UNFIT.values(), ids=UNFIT.keys())
async def test_a_key_that_is_not_fit_verifies_nothing(
    played: Played, tmp_path: Path, key: Any, algorithm: str, published: dict[str, Any]
) -> None:
    played.says["/jwks_uri"] = {"keys": ["no key", published]}
    async with at(played, tmp_path, algorithms=["ES256", "RS256"]) as oidc:
        assert await code(oidc, id_token=signed(key, algorithm), nonce=NONCE) == "token_invalid"


@pytest.mark.parametrize(
    ("key", "algorithm", "digest"),
    [(KEY, "ES256", "sha256"), (ed25519.Ed25519PrivateKey.generate(), "EdDSA", "sha512")],
    ids=["ES256", "EdDSA"],
)
async def test_an_id_token_goes_with_its_own_access_token(
    played: Played, tmp_path: Path, key: Any, algorithm: str, digest: str
) -> None:
    played.says["/jwks_uri"] = {"keys": [jwk(key, algorithm)]}
    whole = hashlib.new(digest, b"opaque").digest()
    half = base64.urlsafe_b64encode(whole[: len(whole) // 2]).rstrip(b"=").decode()
    async with at(played, tmp_path, algorithms=[algorithm]) as oidc:
        assert await verify(oidc, id_token=signed(key, algorithm, at_hash=half), access_token="opaque")
        for other in ("another", half[:-1], 7, None):
            id_token = signed(key, algorithm, at_hash=other)
            assert await code(oidc, id_token=id_token, access_token="opaque") == "token_invalid", other


async def test_a_token_without_end_is_only_the_issuers_to_read(played: Played, tmp_path: Path) -> None:
    """Its header would take a reader of JSON deeper than it can go."""
    deep = base64.urlsafe_b64encode(b"[" * 11_000).rstrip(b"=").decode() + ".e30.c2ln"
    played.says["/introspection_endpoint"] = {"active": False}
    async with at(played, tmp_path) as oidc:
        assert await code(oidc, id_token=deep, nonce=NONCE) == "token_invalid"
        assert await code(oidc, access_token=deep) == "token_inactive"


# --- what it says of tokens


async def ask(played: Played, folder: Path, said: Any, **body: Any) -> Any:
    played.says["/introspection_endpoint"] = said
    async with at(played, folder) as oidc:
        return (await oidc.handle(request(TOKEN, {"token": "opaque", **body}))).body


async def test_what_it_does_not_say_is_unknown(played: Played, tmp_path: Path) -> None:
    said = await ask(played, tmp_path, {"active": True}, scopes=["openid"], assurance="low")
    assert said == {
        "active": True,
        "audience": "unknown",
        "scopes": [{"scope": "openid", "held": "unknown"}],
        "assurance": "unknown",
    }
    assert await ask(played, tmp_path, ACTIVE | {"aud": ["x", "gsb"]}) == {"active": True, "audience": "yes"}
    assert await ask(played, tmp_path, ACTIVE | {"aud": "gsb-x"}) == {"active": True, "audience": "no"}


async def test_a_token_whose_time_is_over_is_not_active_whatever_it_says(played: Played, tmp_path: Path) -> None:
    for times in ({"exp": time.time() - 30.5}, {"nbf": time.time() + 600}, {"exp": "soon"}, {"exp": True}):
        assert await ask(played, tmp_path, ACTIVE | times) == {"active": False}, times


@pytest.mark.parametrize(
    "said",
    [{}, {"active": "yes"}, {"active": 1}, ACTIVE | {"iss": "https://id.elsewhere.example"}, [], ("401 No", {})],
    ids=str,
)
async def test_an_answer_that_is_none_is_broken(played: Played, tmp_path: Path, said: Any) -> None:
    with pytest.raises(Broken):
        await ask(played, tmp_path, said)


async def test_the_secret_goes_in_the_header_encoded_and_the_token_in_the_body(played: Played, tmp_path: Path) -> None:
    await ask(played, tmp_path, ACTIVE, token="a+b/c=.~")
    head, _, body = played.requests[-1].partition(b"\r\n\r\n")
    (line,) = (each for each in head.decode().split("\r\n") if each.startswith("Authorization: Basic "))
    assert base64.b64decode(line.removeprefix("Authorization: Basic ")) == b"gsb:s3cr+t%2F%2B"
    assert parse_qs(body.decode()) == {"token": ["a+b/c=.~"], "token_type_hint": ["access_token"]}
    assert b"a+b" not in head


async def test_what_is_reached_by_another_address_is_asked_by_its_own(played: Played, tmp_path: Path) -> None:
    await ask(played, tmp_path, ACTIVE)
    assert played.url != NAME
    assert all(b"\r\nHost: id.example\r\n" in each for each in played.requests)


# --- what it says of citizens


async def test_an_opaque_token_must_be_for_the_bus_and_somebodys(played: Played, tmp_path: Path) -> None:
    async with at(played, tmp_path) as oidc:
        assert await verify(oidc, access_token="opaque") == {"verified": True, "claims": {}}
        for said, expected in (
            (ACTIVE | {"aud": "portal"}, "audience_invalid"),
            (ACTIVE | {"aud": None}, "audience_invalid"),
            (ACTIVE | {"sub": None}, "token_invalid"),
            ({"active": False}, "token_inactive"),
        ):
            played.says["/introspection_endpoint"] = said
            assert await code(oidc, access_token="opaque") == expected


async def test_userinfo_must_be_of_the_same_citizen(played: Played, tmp_path: Path) -> None:
    body = {"access_token": "opaque", "claims": {"given_name": "Amina"}}
    async with at(played, tmp_path) as oidc:
        assert (await verify(oidc, **body))["claims"] == {"given_name": "yes"}
        played.says["/userinfo_endpoint"] = {"sub": "moussa", "given_name": "Amina"}
        assert await code(oidc, **body) == "token_invalid"
        played.says["/userinfo_endpoint"] = ("401 No", {"error": "invalid_token"})
        assert await code(oidc, **body) == "token_inactive"
        played.says["/userinfo_endpoint"] = ("403 No", {"error": "insufficient_scope"})
        assert (await verify(oidc, **body))["claims"] == {"given_name": "unknown"}
        played.says["/userinfo_endpoint"] = {"given_name": "Amina"}
        with pytest.raises(Broken):
            await verify(oidc, **body)


async def test_a_claim_may_have_another_name_there(played: Played, tmp_path: Path) -> None:
    played.says["/userinfo_endpoint"] = {"sub": "amina", "urn:name": "Amina", "given_name": "Aïcha"}
    async with at(played, tmp_path, claims={"given_name": "urn:name"}) as oidc:
        reply = await verify(oidc, access_token="opaque", claims={"given_name": "Amina", "email": "a@example.org"})
    assert reply["claims"] == {"given_name": "yes", "email": "unknown"}
