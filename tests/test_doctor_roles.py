"""``gsb doctor`` beside a node that plays some roles: what that node has no use for is not asked of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gsb.catalogue import build
from gsb.doctor import Found, Grade, examine, machine
from gsb.doctor.network import names
from gsb.doctor.node import node
from gsb.doctor.systems import systems
from gsb.roles import Role, Roles
from tests.support.cluster import spread
from tests.support.deployment import Deployment, standard
from tests.support.node import node_in_process
from tests.test_doctor import run

NOWHERE = "postgresql://bus@127.0.0.1:1/gsb"
GATEWAY, RECORDER = Roles.of([Role.GATEWAY], []), Roles.of([Role.RECORDER], [])
READ_ONLY = Path("/proc/sys")
"""A folder that can be read and, by nobody at all, be written."""


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    """With a system whose secret file is empty, as where it is withheld from those who do not work for it."""
    made = spread(standard(tmp_path), NOWHERE, [8080], "127.0.0.1:1")
    authority = made.secrets / "authority.pem"
    authority.touch()
    settings = {"url": "https://tax.invalid", "tls": {"authority": str(authority)}}
    made.system("tax", adapter="http_json", settings=settings)
    return made


async def asked(deployment: Deployment, roles: Roles) -> list[Found]:
    return [each async for each in systems(build(deployment.write()), roles)]


async def test_a_system_that_cannot_be_opened_is_named_and_the_others_are_asked(deployment: Deployment) -> None:
    tax, registry = await asked(deployment, Roles())
    assert (tax.what, tax.grade) == ("system: tax", Grade.TROUBLE)
    assert tax.said == "the adapter cannot open: SSLError"
    assert tax.do == "gsb serve does not start with it, and says the whole: mend what systems/tax.toml names"
    assert registry == Found("system: registry", Grade.WELL, "The registry answers")


@pytest.mark.parametrize(
    ("roles", "systems"),
    [(GATEWAY, []), (RECORDER, []), (Roles.of([Role.WORKER], ["registry"]), ["system: registry"])],
)
async def test_only_the_systems_of_this_node_are_asked(
    deployment: Deployment, roles: Roles, systems: list[str]
) -> None:
    assert [(each.what, each.grade) for each in await asked(deployment, roles)] == [(x, Grade.WELL) for x in systems]


async def test_systems_that_changed_meanwhile_are_told(deployment: Deployment) -> None:
    catalogue = build(deployment.write())
    (deployment.secrets / "authority.pem").unlink()
    (told,) = [each async for each in systems(catalogue, Roles.of([Role.WORKER], ["registry"]))]
    assert (told.what, told.grade) == ("system: tax", Grade.TROUBLE)


def test_only_a_recorder_writes_the_log(deployment: Deployment) -> None:
    deployment.gsb["log"]["path"] = str(READ_ONLY)
    catalogue = build(deployment.write())
    (told,) = machine.disks(catalogue, RECORDER)
    assert told.said.startswith(f"{READ_ONLY} cannot be written: ")
    (told,) = machine.disks(catalogue, GATEWAY)
    assert told == Found("disk: log", Grade.WELL, f"{READ_ONLY} can be read; recorders alone write it")


def test_a_log_that_is_not_there_yet_and_one_that_cannot_be_read(tmp_path: Path, deployment: Deployment) -> None:
    catalogue = build(deployment.write())
    (told,) = machine.disks(catalogue, GATEWAY)
    assert (told.grade, told.said) == (Grade.WELL, f"{deployment.log_folder} is not there yet: a recorder makes it")
    deployment.log_folder.write_text("no folder")
    (told,) = machine.disks(catalogue, GATEWAY)
    assert told.grade is Grade.TROUBLE
    assert told.said == f"{deployment.log_folder} cannot be read: Not a directory"


async def test_names_are_those_of_this_node(deployment: Deployment) -> None:
    deployment.gsb["tracing"] = {"endpoint": "https://collector.invalid:4318"}
    (deployment.folder / "dsn").write_text("postgresql://bus@db.invalid,%2Frun/gsb?sslmode=disable\n")
    catalogue = build(deployment.write())
    of_all = {"name: db.invalid", "name: collector.invalid"}
    assert {each.what async for each in names(catalogue, GATEWAY)} == of_all
    assert {each.what async for each in names(catalogue)} == of_all | {"name: tax.invalid"}


async def test_secrets_are_those_of_this_node(deployment: Deployment) -> None:
    (deployment.secrets / "authority.pem").chmod(0o644)  # as what stands in place of one that is withheld
    catalogue = build(deployment.write())
    for roles, told in ((GATEWAY, False), (Roles(), True)):
        (secrets,) = [each async for each in examine(catalogue, roles) if each.what == "secrets"]
        assert ("authority.pem" in secrets.said) is told


async def test_of_witnesses_only_a_recorder_knows(tmp_path: Path) -> None:
    async with node_in_process(tmp_path, standard(tmp_path)) as it:
        catalogue = it.node.bus.catalogue
        assert [each.what async for each in node(catalogue, GATEWAY)] == ["node", "recorder"]
        assert [each.what async for each in node(catalogue, RECORDER)] == ["node", "recorder", "witness"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--role", "worker", "--system", "registri"], "there is no system 'registri'; did you mean 'registry'?"),
        (["--system", "registry", "--role", "gateway"], "only a worker works for some systems: "),
    ],
)
def test_what_serve_refuses_doctor_refuses_in_one_line(deployment: Deployment, options: list[str], said: str) -> None:
    code, out, err = run("--config", deployment.write(), *options)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(f"gsb: no node can be so: {said}")


def test_a_node_on_one_machine_plays_every_role(tmp_path: Path) -> None:
    code, _, err = run("--config", standard(tmp_path).write(), "--role", "recorder")
    assert code == 2
    assert err.startswith('gsb: no node can be so: with store.kind = "sqlite" one node plays every role')


def test_the_command_takes_the_words_of_serve(deployment: Deployment) -> None:
    deployment.gsb["log"]["path"] = str(READ_ONLY)
    words = ["--role", "gateway", "--role", "worker", "--system", "registry"]
    code, out, _ = run("--config", deployment.write(), *words)
    lines = out.splitlines()
    assert f"well     disk: log: {READ_ONLY} can be read; recorders alone write it" in lines
    assert "well     system: registry: The registry answers" in lines
    troubles = [line.split(": ")[0] for line in lines if line.startswith("TROUBLE")]
    assert (code, troubles) == (1, ["TROUBLE  store", "TROUBLE  kafka"])  # there is neither
