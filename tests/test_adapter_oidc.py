"""The adapter for digital identities against a real Canaille: with what it issues, and with what others make of it."""

from __future__ import annotations

import base64
import hmac
import json
import time
import unicodedata
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from config.systems.canaille import CLIENT, PORTAL, SECRET, SYSTEM
from config.systems.running import Copy
from gsb.schema import Schema
from gsb.sdk import Broken, Clock, Refused
from gsb_adapters.oidc import Oidc
from tests.support.adapters import opened, request
from tests.support.citizen import access_token, log_in, post, revoke
from tests.support.real import real, shared

TOKEN, VERIFY = "digital-id/token/v1", "digital-id/verify/v1"
SCHEMAS = Path(__file__).parents[1] / "schemas"
SERVICES = {TOKEN: {"answers": "introspection"}, VERIFY: {"answers": "verification"}}
NONCE = "nonce-of-this-log-in"
pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


def settings(system: Copy, **more: Any) -> dict[str, Any]:
    given = {"url": system.url, "loopback": True, "client": CLIENT, "algorithms": ["RS512"]}
    levels = {"low": ["pwd"], "substantial": ["mfa"]}
    return {**given, "secret": str(system.place.folder / "client-secret.txt"), "levels": levels, **more}


issuer = shared("canaille")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def identity(issuer: Copy) -> AsyncIterator[Oidc]:
    async with opened(Oidc, settings(issuer), SERVICES) as adapter:
        yield adapter


def schema(service: str, side: str) -> Schema:
    return Schema.compile(json.loads((SCHEMAS / service / f"{side}.json").read_bytes()), side)


async def asked(identity: Oidc, service: str, **body: Any) -> Any:
    """The reply. Request and reply fit their schemas, as the bus sees to."""
    assert schema(service, "request").faults(body) == []
    reply = (await identity.handle(request(service, body))).body
    assert schema(service, "reply").faults(reply) == []
    return reply


async def refused(identity: Oidc, **body: Any) -> str:
    """With which code verification is refused."""
    with pytest.raises(Refused) as raised:
        await asked(identity, VERIFY, **body)
    return raised.value.code


# --- introspection


async def test_of_a_token_only_predicates_are_told(identity: Oidc, issuer: Copy) -> None:
    token = await access_token(issuer.url, "amina", scope="openid profile")
    said = await asked(identity, TOKEN, token=token, scopes=["openid", "email"], assurance="low")
    assert said == {
        "active": True,
        "audience": "yes",
        "scopes": [{"scope": "openid", "held": "yes"}, {"scope": "email", "held": "no"}],
        "assurance": "unknown",
    }
    assert await asked(identity, TOKEN, token=token) == {"active": True, "audience": "yes"}


async def test_an_opaque_token_is_asked_about_as_well(identity: Oidc, issuer: Copy) -> None:
    form = {"grant_type": "client_credentials", "scope": "openid"}
    token = (await post(issuer.url, "/oauth/token", form, CLIENT))["access_token"]
    assert "." not in token
    assert await asked(identity, TOKEN, token=token) == {"active": True, "audience": "yes"}
    assert await refused(identity, access_token=token) == "token_invalid"  # it is no person's


async def test_a_token_that_does_not_hold_tells_nothing_else(identity: Oidc, issuer: Copy) -> None:
    token = await access_token(issuer.url, "amina")
    foreign = await access_token(issuer.url, "amina", client=PORTAL)
    await revoke(issuer.url, token)
    for each in (token, foreign, "nonesuch", "a.b.c"):
        assert await asked(identity, TOKEN, token=each, scopes=["openid"]) == {"active": False}


# --- verification of what it issued


async def test_a_log_in_shows_whether_what_is_said_is_so(identity: Oidc, issuer: Copy) -> None:
    """From the citizen's browser to the answers: authorization code, PKCE, consent."""
    tokens = await log_in(issuer.url, "amina")
    claims = {
        "given_name": "Amina",
        "family_name": "Traoré",
        "birthdate": "1984-03-02",
        "email": "AMINA@example.org",
    }
    said = await asked(
        identity,
        VERIFY,
        access_token=tokens.access,
        id_token=tokens.id,
        nonce=tokens.nonce,
        claims=claims,
        assurance="low",
    )
    answers = {"given_name": "yes", "family_name": "no", "birthdate": "unknown", "email": "yes"}
    assert said == {"verified": True, "claims": answers, "assurance": "yes"}


async def test_an_id_token_is_enough_with_its_nonce(identity: Oidc, issuer: Copy) -> None:
    tokens = await log_in(issuer.url, "moussa")
    told = {"id_token": tokens.id, "claims": {"given_name": "Moussa"}, "assurance": "substantial"}
    said = await asked(identity, VERIFY, **told, nonce=tokens.nonce)
    assert said == {"verified": True, "claims": {"given_name": "yes"}, "assurance": "no"}
    assert await refused(identity, **told, nonce=NONCE) == "nonce_invalid"


async def test_how_a_name_is_written_does_not_matter(identity: Oidc, issuer: Copy) -> None:
    token = await access_token(issuer.url, "moussa")
    said = {"family_name": unicodedata.normalize("NFD", " KEÏTA "), "given_name": "Mousa"}
    reply = await asked(identity, VERIFY, access_token=token, claims=said)
    assert reply["claims"] == {"family_name": "yes", "given_name": "no"}
    token = await access_token(issuer.url, "fatou")
    for name in ("N'Diaye", "n\u2019diaye"):  # Canaille itself writes N&#39;Diaye
        assert (await asked(identity, VERIFY, access_token=token, claims={"family_name": name}))["claims"] == {
            "family_name": "yes"
        }


async def test_what_the_citizen_did_not_consent_to_is_unknown(identity: Oidc, issuer: Copy) -> None:
    token = await access_token(issuer.url, "amina", scope="openid")
    reply = await asked(identity, VERIFY, access_token=token, claims={"given_name": "Amina"})
    assert reply["claims"] == {"given_name": "unknown"}


# --- and what it refuses


async def test_a_revoked_token_is_refused_at_once(identity: Oidc, issuer: Copy) -> None:
    tokens = await log_in(issuer.url, "fatou")
    body = {"access_token": tokens.access, "claims": {"family_name": "N'Diaye"}}
    assert (await asked(identity, VERIFY, **body))["claims"] == {"family_name": "yes"}
    await revoke(issuer.url, tokens.access)
    assert await refused(identity, **body) == "token_inactive"
    assert await refused(identity, **body, id_token=tokens.id) == "token_inactive"
    # In the place of an ID token it is as genuine as ever, but no log-in has its nonce.
    assert await refused(identity, id_token=tokens.access, nonce=tokens.nonce) == "nonce_invalid"


async def test_what_was_issued_to_somebody_else_is_refused(identity: Oidc, issuer: Copy) -> None:
    tokens = await log_in(issuer.url, "amina", client=PORTAL)
    assert await refused(identity, access_token=tokens.access) == "audience_invalid"
    assert await refused(identity, id_token=tokens.id, nonce=tokens.nonce) == "audience_invalid"


async def test_tokens_of_two_log_ins_or_two_people_are_refused(identity: Oidc, issuer: Copy) -> None:
    first = await log_in(issuer.url, "amina")
    for other in (await log_in(issuer.url, "amina"), await log_in(issuer.url, "moussa")):
        assert await refused(identity, id_token=first.id, access_token=other.access) == "token_invalid"
    # An ID token that does not say with which access token it was issued is still of one person.
    unsaid = made(issuer, sub="moussa")
    assert await refused(identity, id_token=unsaid, access_token=first.access) == "token_invalid"
    assert await asked(identity, VERIFY, id_token=made(issuer), access_token=first.access)


# --- tokens that somebody else made, or Canaille's own key signed for no log-in

SOMEBODYS = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def issuers() -> dict[str, Any]:
    """The private key with which Canaille itself signs, as a JWK."""
    return dict(json.loads((SYSTEM.golden / "key.json").read_text("utf-8")))


def public_pem() -> bytes:
    key: Any = jwt.PyJWK.from_dict(issuers(), algorithm="RS512").key
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def made(issuer: Copy, *, key: Any = None, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
    """A token as Canaille makes it but for what is given; a claim that is None is left out."""
    now = time.time()
    whole = {"iss": issuer.url, "aud": [CLIENT], "sub": "amina", "iat": now - 1.5, "exp": now + 600.5, "nonce": NONCE}
    content = {name: value for name, value in (whole | claims).items() if value is not None}
    head = {"alg": "RS512", "kid": issuers()["kid"], **(header or {})}
    headers = {name: value for name, value in head.items() if value is not None}
    signer = jwt.PyJWK.from_dict(issuers(), algorithm="RS512").key if key is None else key
    # PyJWT would not take a public key for a shared secret; whoever attacks does.
    body = base64url(json.dumps(headers)) + "." + base64url(json.dumps(content))
    algorithm = headers["alg"]
    if algorithm == "HS256":
        return f"{body}.{base64url(hmac.digest(signer, body.encode(), 'sha256'))}"
    signature = b"" if algorithm == "none" else jwt.get_algorithm_by_name(algorithm).sign(body.encode(), signer)
    return f"{body}.{base64url(signature)}"


def base64url(text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


async def test_what_its_own_key_signed_is_taken(issuer: Copy) -> None:
    """So what is refused below is refused for the one thing in which it differs."""
    now = time.time()
    async with opened(Oidc, settings(issuer), SERVICES, clock=Clock(now=lambda: now)) as identity:
        for claims in ({}, {"exp": now - 20.5}, {"nbf": now + 20.5}, {"aud": CLIENT}, {"iat": None}):
            token = made(issuer, **({"iat": now} | claims))  # later it would come from the future
            reply = await asked(identity, VERIFY, id_token=token, nonce=NONCE)
            assert reply == {"verified": True, "claims": {}}, claims


FORGED: dict[str, tuple[str, dict[str, Any]]] = {
    "unsigned, as discovery says it may be": ("algorithm_invalid", {"header": {"alg": "none"}, "key": b""}),
    "the public key as a shared secret": ("algorithm_invalid", {"header": {"alg": "HS256"}, "key": public_pem}),
    "the client's secret": ("algorithm_invalid", {"header": {"alg": "HS256"}, "key": SECRET.encode()}),
    "an algorithm that is not allowed": ("algorithm_invalid", {"header": {"alg": "RS256"}}),
    "another key under its name": ("token_invalid", {"key": SOMEBODYS}),
    "another key under another name": ("token_invalid", {"key": SOMEBODYS, "header": {"kid": "mine"}}),
    "no name of a key": ("token_invalid", {"header": {"kid": None}}),
    "an extension": ("token_invalid", {"header": {"crit": ["exp"]}}),
    "another issuer": ("token_invalid", {"iss": "https://id.elsewhere.example"}),
    "no issuer": ("token_invalid", {"iss": None}),
    "nobody": ("token_invalid", {"sub": None}),
    "another audience": ("audience_invalid", {"aud": [PORTAL]}),
    "an audience that contains it": ("audience_invalid", {"aud": f"{CLIENT}-test"}),
    "no audience": ("token_invalid", {"aud": None}),
    "no end": ("token_invalid", {"exp": None}),
    "an end that is no number": ("token_expired", {"exp": "never"}),
    "an end that is not a number": ("token_expired", {"exp": float("nan")}),
    "another log-in": ("nonce_invalid", {"nonce": "of-another-log-in"}),
    "no log-in": ("nonce_invalid", {"nonce": None}),
}


@pytest.mark.parametrize(("code", "made_of"), FORGED.values(), ids=FORGED.keys())
async def test_what_is_forged_is_refused(identity: Oidc, issuer: Copy, code: str, made_of: dict[str, Any]) -> None:
    given = made_of.get("key")
    token = made(issuer, **(made_of | {"key": given() if given is public_pem else given}))
    assert await refused(identity, id_token=token, nonce=NONCE) == code


@pytest.mark.parametrize(
    "claims",
    [{"exp": -30.5}, {"nbf": 31.5}, {"iat": 31.5}, {"exp": -3600}],
    ids=["just expired", "not yet in force", "made in the future", "long expired"],
)
async def test_times_hold_but_for_the_leeway(issuer: Copy, claims: dict[str, float]) -> None:
    """By a clock that stands still: what is not yet in force is not, however long the test takes."""
    now = time.time()
    times: dict[str, Any] = {name: now + offset for name, offset in claims.items()}
    token = made(issuer, **times)
    async with opened(Oidc, settings(issuer), SERVICES, clock=Clock(now=lambda: now)) as identity:
        assert await refused(identity, id_token=token, nonce=NONCE) == "token_expired"


async def test_content_that_was_changed_is_refused(identity: Oidc, issuer: Copy) -> None:
    tokens = await log_in(issuer.url, "amina")
    header, content, signature = tokens.id.split(".")
    said = json.loads(base64.urlsafe_b64decode(content + "==")) | {"sub": "moussa"}
    token = f"{header}.{base64url(json.dumps(said))}.{signature}"
    assert await refused(identity, id_token=token, nonce=tokens.nonce) == "token_invalid"


async def test_what_canaille_never_issued_is_asked_about_and_refused(identity: Oidc, issuer: Copy) -> None:
    """Whoever has its key still needs its word."""
    assert await refused(identity, access_token=made(issuer)) == "token_inactive"


# --- the bus's own part


async def test_a_wrong_secret_is_noticed(issuer: Copy, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("wrong")
    async with opened(Oidc, settings(issuer, secret=str(secret)), SERVICES) as adapter:
        with pytest.raises(Broken, match="401"):
            await adapter.check()
        secret.write_text(SECRET)  # it is read at each use
        await adapter.check()


async def test_a_key_that_is_replaced_is_learnt_but_not_at_anybodys_pace(tmp_path: Path) -> None:
    passed = [0.0]
    async with real("canaille", tmp_path) as issuer:
        given = settings(issuer, pace=30.0, keep=600.0)
        async with opened(Oidc, given, SERVICES, clock=Clock(steady=lambda: passed[0])) as identity:
            first = await log_in(issuer.url, "amina")
            await asked(identity, VERIFY, id_token=first.id, nonce=first.nonce)
            await issuer.stop()
            SYSTEM.replace_key(issuer.place)
            await issuer.start()
            second = await log_in(issuer.url, "amina")
            passed[0] = 29.0
            assert await refused(identity, id_token=second.id, nonce=second.nonce) == "token_invalid"
            passed[0] = 31.0
            await asked(identity, VERIFY, id_token=second.id, nonce=second.nonce)
            # The issuer has withdrawn the first key, and so has the adapter.
            assert await refused(identity, id_token=first.id, nonce=first.nonce) == "token_invalid"
