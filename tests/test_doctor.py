"""``gsb doctor``: each thing broken on purpose, and named; what is well, told; nothing secret told or sent along."""

from __future__ import annotations

import json
import os
import tarfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from gsb.catalogue import build
from gsb.cli.operate.doctor import doctor as command
from gsb.doctor import Found, Grade, examine, keys, machine, write_bundle
from gsb.doctor.node import _recorder
from gsb.evidence.checkpoint import Cosigner
from gsb.evidence.entry import make_entry
from gsb.sdk import Unavailable
from tests.support.canaries import Planted
from tests.support.certificates import certificate
from tests.support.deployment import Deployment, free_ports, standard
from tests.support.node import node_in_process
from tests.support.reading import published, size_of
from tests.support.theatre import empty_stage, raising

app = typer.Typer()
app.command()(command)


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


async def found(deployment: Deployment) -> dict[str, Found]:
    """What is found, by what it is of; of several of one thing the last."""
    return {each.what: each async for each in examine(build(deployment.write()))}


async def ill(deployment: Deployment) -> dict[str, Found]:
    """What is in trouble. That no node is at work is no trouble."""
    return {what: each for what, each in (await found(deployment)).items() if each.grade is Grade.TROUBLE}


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    made = standard(tmp_path)
    for path in made.folder.rglob("*"):
        if path.is_file():
            path.chmod(0o600)
    return made


# --- nothing is wrong


async def test_a_deployment_that_is_well_is_said_to_be(tmp_path: Path, deployment: Deployment) -> None:
    async with node_in_process(tmp_path, deployment):
        told = await found(deployment)
    assert [each for each in told.values() if each.grade is Grade.TROUBLE] == []
    assert {"clock", "disk: log", "disk: store", "open files", "names", "keys: the bus"} <= set(told)
    assert {"keys: agency payroll", "secrets", "store", "system: registry", "node", "recorder", "witness"} <= set(told)
    assert told["node"].said == f"ready, at {deployment.operations_url}"


def test_the_command_prints_one_line_each_and_what_to_do(deployment: Deployment) -> None:
    code, out, err = run("--config", deployment.write())
    assert (code, err) == (0, "")
    lines = out.splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith("WARNING  node: none answers at "))
    assert lines[at + 1].startswith("         -> start one (gsb serve)")
    assert "well     system: registry: The registry answers" in lines


def test_machines_are_told_the_same(deployment: Deployment) -> None:
    deployment.gsb["bus"]["keys"][0]["until"] = datetime.now(UTC) + timedelta(days=1)
    code, out, _ = run("--config", deployment.write(), "--json")
    told = json.loads(out)
    assert (code, told["ok"]) == (0, True)
    bus = next(each for each in told["found"] if each["what"] == "keys: the bus")
    assert (bus["grade"], bus["do"]) == ("warning", "gsb keygen, then a further [[bus.keys]]")


# --- what cannot be examined


def test_a_deployment_that_is_not_right_is_in_trouble(deployment: Deployment) -> None:
    deployment.files["systems/registry.toml"]["agency"] = "nobody"
    code, out, _ = run("--config", deployment.write())
    assert code == 1
    assert out.startswith("TROUBLE  deployment: systems/registry.toml: agency: there is no agency 'nobody'\n")


def test_without_a_folder_it_says_so_in_a_line(tmp_path: Path) -> None:
    code, out, err = run("--config", tmp_path / "nowhere")
    assert (code, out) == (2, "")
    assert err == f"gsb: cannot read the deployment: there is no folder {tmp_path / 'nowhere'}\n"


# --- the machine


async def test_a_clock_that_was_set_back(deployment: Deployment) -> None:
    store = deployment.write() / "store.db"
    store.touch()
    ahead = time.time() + 3600
    os.utime(store, (ahead, ahead))
    told = (await found(deployment))["clock"]
    assert told.grade is Grade.TROUBLE
    assert "before what was written here last" in told.said


async def test_a_disk_that_is_nearly_full(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LOW", 1 << 62)
    assert (await found(deployment))["disk: store"].grade is Grade.WARNING
    monkeypatch.setattr(machine, "LEAST", 1 << 62)
    assert {"disk: store", "disk: log"} <= set(await ill(deployment))


async def test_a_folder_that_cannot_be_written(deployment: Deployment) -> None:
    deployment.gsb["log"]["path"] = "/proc/gsb-log"
    told = (await ill(deployment))["disk: log"]
    assert told.said.startswith("/proc cannot be written: ")


async def test_too_few_files(deployment: Deployment) -> None:
    deployment.gsb["limits"]["connections"] = 1 << 40
    assert (await found(deployment))["open files"].grade is Grade.WARNING


async def test_a_name_that_stands_for_no_address(deployment: Deployment) -> None:
    deployment.system("tax", adapter="http_json", settings={"url": "http://tax.invalid:8080"})
    assert (await ill(deployment))["name: tax.invalid"].do == "mend the name, /etc/resolv.conf or DNS"


# --- keys and certificates


async def test_a_key_that_ends_soon_and_one_that_has_ended(deployment: Deployment) -> None:
    (key,) = deployment.files["agencies/payroll.toml"]["keys"]
    key["until"] = datetime.now(UTC) + timedelta(days=7)
    assert (await found(deployment))["keys: agency payroll"].grade is Grade.WARNING
    key["until"] = datetime.now(UTC) - timedelta(days=1)
    assert "no key counts now" in (await ill(deployment))["keys: agency payroll"].said


async def test_a_secret_that_everybody_can_read(deployment: Deployment) -> None:
    (deployment.folder / "store.key").chmod(0o644)
    told = (await found(deployment))["secrets"]
    assert told.grade is Grade.WARNING
    assert "store.key" in told.said


def _tls(deployment: Deployment, certificate: Path, key: Path | None = None) -> None:
    table = {"certificate": str(certificate), "key": str(key or certificate)}
    deployment.gsb["listen"]["tls"] = table


async def test_a_certificate_that_is_for_another_host_or_whose_key_is_another_s(deployment: Deployment) -> None:
    mine = certificate(deployment.secrets, "bus")
    _tls(deployment, mine)
    deployment.gsb["bus"]["base_urls"] = [f"https://localhost:{deployment.port}"]
    told = (await found(deployment))["certificate"]
    assert told.grade is Grade.WARNING  # it is good for a day
    deployment.gsb["bus"]["base_urls"] = [f"https://127.0.0.1:{deployment.port}"]
    assert (await ill(deployment))["certificate"].said == "it is not for 127.0.0.1"
    catalogue = build(deployment.write())
    later = [each.said for each in keys.certificate(catalogue, time.time() + 30 * 86_400)]
    assert any(said.startswith("it has counted until ") for said in later)
    earlier = [each.said for each in keys.certificate(catalogue, time.time() - 86_400)]
    assert any(said.startswith("it counts only from ") for said in earlier)


async def test_a_certificate_with_another_s_key(deployment: Deployment) -> None:
    _tls(deployment, certificate(deployment.secrets, "bus"), certificate(deployment.secrets, "other"))
    catalogue = build(deployment.write())
    (told,) = list(keys.certificate(catalogue))
    assert told.grade is Grade.TROUBLE
    assert "cannot be used" in told.said


def _chain(deployment: Deployment, *upper: str) -> list[Found]:
    """What is said of a certificate that ``authority`` has issued, with these behind it."""
    folder = deployment.secrets
    pem = (folder / "bus.pem").read_text()
    for name in upper:
        text = (folder / f"{name}.pem").read_text()
        pem += text[text.index("-----BEGIN CERTIFICATE") :]
    (folder / "chain.pem").write_text(pem)
    _tls(deployment, folder / "chain.pem")
    return [each for each in keys.certificate(build(deployment.write())) if each.grade is Grade.TROUBLE]


async def test_a_chain_out_of_order_and_one_whose_names_alone_fit(deployment: Deployment) -> None:
    deployment.gsb["bus"]["base_urls"] = [f"https://localhost:{deployment.port}"]
    for name, issuer in (("authority", None), ("bus", "authority"), ("other", None)):
        certificate(deployment.secrets, name, issuer)
    assert _chain(deployment, "authority") == []
    assert [each.said for each in _chain(deployment, "other", "authority")] == ["its chain is out of order"] * 2
    certificate(deployment.secrets, "authority")  # of the same name, with another key
    (told,) = _chain(deployment, "authority")
    assert told.said == "its chain breaks: another key than that of CN=authority has signed"


# --- core systems and the node


async def test_a_core_system_that_is_down(deployment: Deployment) -> None:
    (port,) = free_ports(1)
    deployment.system("tax", adapter="http_json", agency="tax-agency", settings={"url": f"http://127.0.0.1:{port}"})
    told = (await ill(deployment))["system: tax"]
    assert told.said == "it cannot be reached, or takes nothing now"
    assert told.do == "ask tax-agency, look at the way there and at systems/tax.toml"


async def test_a_system_that_the_node_counts_as_down(tmp_path: Path, deployment: Deployment) -> None:
    stage = empty_stage()
    stage.plays["open"] = raising(Unavailable("away", sent=False))
    deployment.system("theatre", adapter="stage")
    async with node_in_process(tmp_path, deployment):
        told = (await found(deployment))["node: system theatre"]
    assert (told.grade, told.said) == (Grade.WARNING, "it counts as down: it could not be reached at the start")


async def test_a_recorder_that_cannot_write(tmp_path: Path, deployment: Deployment) -> None:
    deployment.gsb["log"] |= {"every": 0.1, "cosign_wait": 0.0, "behind_seconds": 0.5}
    async with node_in_process(tmp_path, deployment) as it, it.client() as client:
        await client.call("registry/person/v1", {"id": "P-0001"}, purpose="payroll")
        # The log's beginning, the call and its outcome: until something else is noted there is nothing to be written.
        await published(it, holding=lambda note: size_of(note) >= 3)
        (year,) = deployment.log_folder.iterdir()
        away = year.rename(tmp_path / "away")
        year.write_text("no folder")
        late = make_entry("test", time.time(), {}, {})
        await it.node.bus.store.note(late)  # a call might be refused, since it may be noticed before
        end = time.monotonic() + 90
        while not {"node", "recorder"} <= set(troubles := await ill(deployment)):
            assert time.monotonic() < end, troubles
        year.unlink()
        away.rename(year)
    assert troubles["node"].said == "it is not ready: recorder"
    assert troubles["node"].do == "see whether a recorder runs and can write the log's folder"
    assert troubles["recorder"].said.endswith("s old: new exchanges are refused")


def test_a_recorder_that_is_behind(deployment: Deployment) -> None:
    table = build(deployment.write()).gsb.log
    for seconds, grade in ((1.0, Grade.WELL), (20.0, Grade.WARNING), (31.0, Grade.TROUBLE)):
        numbers = {"gsb_log_backlog_entries": 7.0, "gsb_log_backlog_seconds": seconds}
        (told,) = list(_recorder(table, numbers))
        assert told.grade is grade
        assert told.said.startswith(f"7 entries are not published, the oldest {seconds:.0f} s old")


async def test_a_log_that_nobody_witnesses_and_one_that_is_not_cosigned(tmp_path: Path, deployment: Deployment) -> None:
    async with node_in_process(tmp_path, deployment):
        assert (await found(deployment))["witness"].said.startswith("nobody witnesses the log")
    (port,) = free_ports(1)
    signer = Cosigner("witness.test", Ed25519PrivateKey.generate())
    witness = {"url": f"http://127.0.0.1:{port}", "key": signer.vkey}
    deployment.gsb["log"] |= {"witnesses": [witness], "cosignatures": 1, "idle": 1.0, "cosigned_within": 1.5}
    async with node_in_process(tmp_path, deployment):
        end = time.monotonic() + 90
        while not {"node", "witness"} <= set(troubles := await ill(deployment)):
            assert time.monotonic() < end, troubles
    assert troubles["witness"].do == "ask the witnesses' operators"


# --- the bundle


async def test_a_bundle_holds_no_secret_and_nothing_of_a_person(tmp_path: Path, deployment: Deployment) -> None:
    planted = Planted()
    token = deployment.secrets / "token.txt"
    token.write_text(planted.text("token"))
    settings = {"url": "http://127.0.0.1:9", "auth": {"kind": "bearer", "token": str(token)}}
    deployment.system("tax", adapter="http_json", settings=settings)
    key = (deployment.folder / "store.key").read_text().strip()
    planted.keep("store key", key)
    planted.keep("bus key", json.loads((deployment.folder / "keys" / "bus.jwk.json").read_text())["d"])
    person = planted.person()
    async with node_in_process(tmp_path, deployment) as it, it.client() as client:
        await client.call("registry/person/v1", {"id": person}, purpose="payroll")
        catalogue = build(deployment.folder)
        told = [each async for each in examine(catalogue)]
        path = tmp_path / "help.tar.gz"
        names = await write_bundle(path, catalogue, told)
    with tarfile.open(path) as bundle:
        parts = {each.name: bundle.extractfile(each).read() for each in bundle.getmembers()}  # type: ignore[union-attr]
    assert names == ["findings.json", "deployment.json", "versions.json", "metrics.txt"]
    assert sorted(parts) == sorted(f"help/{name}" for name in names)
    assert b"gsb_exchanges_accepted_total" in parts["help/metrics.txt"]
    assert planted.found(parts) == []
    assert planted.found({"planted": person.encode()}) != []


def test_a_bundle_is_not_written_over_a_file(tmp_path: Path, deployment: Deployment) -> None:
    path = tmp_path / "help.tar.gz"
    folder = deployment.write()
    code, _, err = run("--config", folder, "--bundle", path)
    assert (code, err) == (
        0,
        f"{path}: findings.json, deployment.json, versions.json; look at it before you send it\n",
    )
    assert run("--config", folder, "--bundle", path)[::2] == (2, f"gsb: {path} is there already\n")
