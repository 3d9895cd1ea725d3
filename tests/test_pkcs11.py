"""The bus's keys in a real token (SoftHSM): what is signed there others verify; a token that goes, and comes back."""

from __future__ import annotations

import asyncio
import itertools
import threading
from pathlib import Path
from typing import Any

import jwt
import orjson
import pytest
from aiohttp import ClientSession
from pkcs11 import Attribute, ObjectClass
from pkcs11.exceptions import AttributeSensitive
from typer.testing import CliRunner

from gsb import compact, hsm, jwk
from gsb.catalogue import ConfigInvalid, build
from gsb.cli.main import app
from gsb.client import BusProblem, Client
from gsb.doctor import Grade, examine
from gsb.errors import SigningUnavailable
from gsb.hsm import Hsm, HsmKey, hsm_of
from gsb.model import Reply, Request
from tests.support.bus import NOTE, ONCE, PERSON_BODY, READ, puppet, puppet_deployment
from tests.support.deployment import Deployment, standard
from tests.support.node import GSB, Reachable, node_in_process, running_node
from tests.support.softhsm import LABEL, MODULE, PIN, TOKEN, SoftHsm

BACK_WITHIN = 90.0


@pytest.fixture
def softhsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    return SoftHsm(tmp_path, monkeypatch)


@pytest.fixture
def deployment(tmp_path: Path, softhsm: SoftHsm) -> Deployment:
    made = standard(tmp_path)
    softhsm.into(made)
    return made


def key_of(deployment: Deployment) -> HsmKey:
    (key,) = build(deployment.write()).bus_keys.in_hsm(0.0)
    return key


def published(deployment: Deployment) -> jwk.PublicKey:
    return jwk.read_public((deployment.folder / f"keys/{LABEL}.pub.jwk.json").read_bytes())


def caller(node: Reachable, **options: Any) -> Client:
    key = published(node.deployment)
    return node.client(bus_keys={key.kid: key}, **options)


def token(key: jwk.PrivateKey) -> str:
    return compact.sign(key, "gsb-res+jwt", {"iss": "bus.test"})


async def missing(node: Reachable) -> list[str]:
    async with ClientSession() as session, session.get(f"{node.operations_url}/readyz") as answer:
        return list((await answer.json())["missing"])


async def until(node: Reachable, expected: list[str]) -> None:
    """Return as soon as the node says that it lacks just this."""
    async with asyncio.timeout(BACK_WITHIN):
        for pause in itertools.repeat(0.05):
            if await missing(node) == expected:
                return
            await asyncio.sleep(pause)


# --- signatures


@pytest.mark.parametrize(("algorithm", "theirs"), [("ES256", "ES256"), ("PS256", "PS256"), ("Ed25519", "EdDSA")])
async def test_what_is_signed_in_the_token_others_verify(softhsm: SoftHsm, algorithm: str, theirs: str) -> None:
    public = softhsm.make(LABEL, algorithm)
    key = hsm_of(softhsm.table).key(LABEL, public)
    signed = await key.run(token)
    assert compact.parse(signed, "gsb-res+jwt").kid == public.kid
    head, claims, signature = signed.split(".")
    if theirs == "EdDSA":  # PyJWT does not know the name Ed25519
        message = f"{head}.{claims}".encode()
        assert jwt.PyJWK(public.jwk | {"alg": theirs}).key.verify(jwk.from_base64url(signature), message) is None
    else:
        assert jwt.decode(signed, jwt.PyJWK(public.jwk).key, [theirs]) == {"iss": "bus.test"}


async def test_a_served_call_is_signed_in_the_token(tmp_path: Path, softhsm: SoftHsm, deployment: Deployment) -> None:
    async with running_node(tmp_path, deployment, environment=softhsm.environment) as node:
        async with caller(node) as client:
            result = await client.call(READ, PERSON_BODY, purpose="payroll")
        async with ClientSession() as session, session.get(f"{node.url}/.well-known/jwks.json") as answer:
            (member,) = orjson.loads(await answer.read())["keys"]
        said = jwt.decode(
            result.headers["GSB-Signature"], jwt.PyJWK(member).key, ["ES256"], audience="payroll", issuer="bus.test"
        )
        assert (said["status"], said["state"]) == (200, "done")
        assert member == published(deployment).jwk
        assert await missing(node) == []


async def test_many_at_once_are_signed_one_after_the_other(tmp_path: Path, deployment: Deployment) -> None:
    async with node_in_process(tmp_path, deployment) as node, caller(node) as client:
        calls = [client.call(READ, PERSON_BODY, purpose="payroll") for _ in range(200)]
        results = await asyncio.gather(*calls)
    assert {(result.status, result.signed) for result in results} == {(200, True)}


def test_the_private_key_cannot_be_had(softhsm: SoftHsm, deployment: Deployment) -> None:
    key = Hsm(softhsm.table).session().get_key(object_class=ObjectClass.PRIVATE_KEY, label=LABEL)
    assert (key[Attribute.SENSITIVE], key[Attribute.EXTRACTABLE]) == (True, False)
    with pytest.raises(AttributeSensitive):
        key[Attribute.VALUE]


# --- a token that goes


async def test_a_token_that_goes_in_the_middle_of_a_call_loses_nothing_and_comes_back_by_itself(
    tmp_path: Path, softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gsb.client.LEAST", 60.0)  # for a single call there is time on any machine
    deployment = puppet_deployment(tmp_path)
    deployment.files["systems/registry.toml"]["timeout"] = 60.0
    softhsm.into(deployment)
    began, go_on = asyncio.Event(), asyncio.Event()
    done: list[str] = []

    async def act(request: Request) -> Reply:
        began.set()
        await go_on.wait()
        done.append(request.exchange)
        return Reply(NOTE)

    puppet().acts = act
    async with node_in_process(tmp_path, deployment) as node, caller(node) as client:
        call = asyncio.create_task(
            client.call(ONCE, NOTE, purpose="payroll", idempotency_key="k-1", timeout=BACK_WITHIN)
        )
        await began.wait()
        softhsm.pull()
        go_on.set()
        await until(node, ["keys"])
        with pytest.raises(BusProblem) as refused:
            await client.call(READ, PERSON_BODY, purpose="payroll", timeout=0.5)
        assert (refused.value.code, refused.value.signed) == ("signing_unavailable", False)
        softhsm.give_back()
        await until(node, [])
        result = await call  # it asked again under the same key, until its answer could be signed
        assert (result.status, result.state, result.signed) == (200, "done", True)
    assert done == [result.exchange]


async def test_a_node_starts_without_its_token_and_serves_when_it_comes(
    tmp_path: Path, softhsm: SoftHsm, deployment: Deployment
) -> None:
    softhsm.pull()
    async with node_in_process(tmp_path, deployment) as node, caller(node) as client:
        assert await missing(node) == ["keys"]
        softhsm.give_back()
        await until(node, [])
        assert (await client.call(READ, PERSON_BODY, purpose="payroll")).signed


async def test_a_module_that_hangs_keeps_nobody_waiting(
    softhsm: SoftHsm, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = key_of(deployment)
    assert await key.look() is None
    monkeypatch.setattr(hsm, "WITHIN", 0.05)
    hanging = threading.Event()
    stuck = hsm._line().do(hanging.wait)
    try:
        with pytest.raises(SigningUnavailable):
            await key.run(token)
        assert key.away
        assert await key.look() == hsm.SLOW
        asked = hsm._line()._work.qsize()
        assert await key.look() == hsm.SLOW
        assert hsm._line()._work.qsize() == asked  # it is not asked again before it has answered
    finally:
        hanging.set()
    await asyncio.wrap_future(stuck)
    monkeypatch.undo()
    assert await key.look() is None
    assert compact.parse(await key.run(token), "gsb-res+jwt").kid == key.kid


# --- PINs


async def test_a_refused_pin_is_tried_once_until_its_file_changes(softhsm: SoftHsm, deployment: Deployment) -> None:
    key = key_of(deployment)
    softhsm.pin.write_text("wrong-pin-0815\n")
    first, second = await key.look(), await key.look()
    assert first == f"it refuses the PIN in {softhsm.pin} (PinIncorrect)"
    assert second == f"it refused the PIN in {softhsm.pin}, which is not tried again before the file changes"
    softhsm.pin.write_text(PIN)
    assert await key.look() is None


async def test_no_pin_stands_in_a_log(tmp_path: Path, softhsm: SoftHsm, deployment: Deployment) -> None:
    wrong = "canary-wrong-1984"
    softhsm.pin.write_text(wrong)
    serve = [GSB, "serve", deployment.folder, "--verbose"]
    environment = softhsm.environment
    async with running_node(tmp_path, deployment, command=serve, environment=environment, ready=False) as node:
        await until(node, ["keys"])
        softhsm.pin.write_text(PIN)
        await until(node, [])
        async with caller(node) as client:
            await client.call(READ, PERSON_BODY, purpose="payroll")
    log = "\n".join(node.log)
    assert "it refuses the PIN in" in log
    assert "signs with 'bus-2026' again" in log
    assert [each for each in (PIN, wrong) if each in log] == []


# --- what is wrong is said


def test_what_its_files_say_wrongly_is_a_finding(softhsm: SoftHsm, deployment: Deployment) -> None:
    bus = deployment.gsb["bus"]
    private = {"file": "keys/bus.jwk.json", "label": "other"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"hsm": None}, "gsb.toml: bus: keys with a label and the table hsm belong together"),
        (
            {"keys": [{"file": "keys/bus.jwk.json"}]},
            "gsb.toml: bus: keys with a label and the table hsm belong together",
        ),
        ({"keys": bus["keys"] * 2}, "gsb.toml: bus: two keys have the same label"),
        (
            {"keys": [private]},
            "gsb.toml: bus.keys.0.file: This is a private key where a public one is wanted.",
        ),
        ({"hsm": bus["hsm"] | {"module": "no.so"}}, "gsb.toml: bus.hsm.module: there is no file no.so"),
        ({"hsm": bus["hsm"] | {"pin": "no.pin"}}, "gsb.toml: bus.hsm.pin: there is no file no.pin"),
    ]
    for change, expected in cases:
        deployment.gsb["bus"] = bus | change
        with pytest.raises(ConfigInvalid) as wrong:
            build(deployment.write())
        assert expected in [str(finding) for finding in wrong.value.findings]


async def test_the_extra_is_asked_for(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hsm, "INSTALLED", False)
    with pytest.raises(ConfigInvalid) as wrong:
        build(deployment.write())
    assert [str(each) for each in wrong.value.findings] == ["gsb.toml: bus.hsm: install the bus with the extra pkcs11"]


async def test_the_doctor_says_what_is_wrong_with_the_hsm(softhsm: SoftHsm, deployment: Deployment) -> None:
    right = deployment.gsb["bus"]
    other = softhsm.make("other")
    (deployment.folder / "keys/other.pub.jwk.json").write_bytes(orjson.dumps(other.jwk))
    table, (key,) = right["hsm"], right["keys"]
    wrong_pin = softhsm.pin.with_name("wrong.pin")
    wrong_pin.write_text("0000")
    no_module = softhsm.pin.with_name("module.so")
    no_module.write_bytes(b"no library")
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "it signs, and is the key of its public file"),
        ({"hsm": table | {"module": str(no_module)}}, f"{no_module} cannot be used: OS exception while loading"),
        ({"hsm": table | {"token": "elsewhere"}}, "it has no token with the label 'elsewhere'"),
        ({"hsm": table | {"pin": str(wrong_pin)}}, f"it refuses the PIN in {wrong_pin} (PinIncorrect)"),
        ({"keys": [key | {"label": "nobody"}]}, "it has no private key with the label 'nobody'"),
        ({"keys": [key | {"label": "other"}]}, "its key 'other' is not that of the public file"),
    ]
    for change, expected in cases:
        deployment.gsb["bus"] = right | change
        hsm_of.cache_clear()  # as another process: each starts the module anew
        (found,) = [each async for each in examine(build(deployment.write())) if each.what.startswith("hsm")]
        assert found.said.startswith(expected)
        assert found.grade is (Grade.TROUBLE if change else Grade.WELL)


async def test_a_running_node_keeps_its_token(tmp_path: Path, deployment: Deployment) -> None:
    async with node_in_process(tmp_path, deployment) as node:
        deployment.gsb["bus"]["hsm"] |= {"token": "elsewhere"}
        deployment.write()
        before = node.node.bus.catalogue
        assert not await node.node.reloader.reload("signal")
        assert node.node.bus.catalogue is before


# --- commands


def command(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in ("hsm", *arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("algorithm", ["ES256", "Ed25519", "PS256"])
def test_a_key_is_made_in_the_token_and_its_public_half_can_be_had_again(
    tmp_path: Path, softhsm: SoftHsm, algorithm: str
) -> None:
    where = ("--module", MODULE, "--token", TOKEN, "--pin", softhsm.pin)
    made, again = tmp_path / "made.jwk.json", tmp_path / "again.jwk.json"
    code, kid, _ = command("keygen", "new", made, *where, "--alg", algorithm)
    assert (code, kid.strip()) == (0, jwk.read_public(made.read_bytes()).kid)
    assert command("public", "new", again, *where)[0] == 0
    assert again.read_bytes() == made.read_bytes()
    assert orjson.loads(made.read_bytes())["alg"] == algorithm


def test_commands_refuse_in_one_line_and_write_nothing(tmp_path: Path, softhsm: SoftHsm) -> None:
    file, here = tmp_path / "key.jwk.json", tmp_path / "here"
    here.write_text("mine")
    softhsm.make("taken")
    pin = tmp_path / "wrong.pin"
    pin.write_text("canary-0000")
    where = {"--module": MODULE, "--token": TOKEN, "--pin": softhsm.pin}
    cases: list[tuple[str, str, Path, dict[str, Any], str]] = [
        ("keygen", "taken", file, {}, "the HSM: a key has the label 'taken' already"),
        ("public", "nobody", file, {}, "the HSM: it has no key with the label 'nobody'"),
        ("keygen", "new", here, {}, f"{here} exists already; it was left as it is"),
        ("keygen", "new", tmp_path / "no/key", {}, f"cannot write {tmp_path}/no/key: No such file or directory"),
        ("keygen", "new", file, {"--token": "x" * 33}, "--token: String should have at most 32 characters"),
        ("keygen", "new", file, {"--pin": pin}, f"the HSM: it refuses the PIN in {pin} (PinIncorrect)"),
        (
            "keygen",
            "new",
            file,
            {"--pin": tmp_path / "no"},
            f"the HSM: {tmp_path}/no cannot be read: FileNotFoundError",
        ),
    ]
    for verb, label, target, change, expected in cases:
        options = [each for pair in (where | change).items() for each in pair]
        assert command(verb, label, target, *options) == (2, "", f"gsb: {expected}\n")
    assert (file.exists(), here.read_text()) == (False, "mine")
