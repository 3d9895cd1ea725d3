"""Which roles a node may play, and what each of them does and leaves to others, by nodes of their own."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import pytest

from gsb.catalogue import Catalogue, build
from gsb.roles import ALL, Role, Roles, RolesUnfit
from gsb.runtime import Runtime
from tests.support.cluster import spread
from tests.support.deployment import Deployment, standard
from tests.support.node import GSB, RunningNode

NOWHERE = "postgresql://bus@127.0.0.1:1/gsb"


def on(tmp_path: Path, *kinds: str) -> Catalogue:
    """A deployment on these kinds of store and broker."""
    deployment = standard(tmp_path)
    if "postgres" in kinds:
        spread(deployment, NOWHERE, [8080], "127.0.0.1:1" if "kafka" in kinds else None)
    return build(deployment.write())


def test_without_a_word_a_node_plays_all_roles_for_all_systems(tmp_path: Path) -> None:
    assert Roles.of([], []) == ALL
    for kinds in ((), ("postgres",), ("postgres", "kafka")):
        ALL.check(on(tmp_path / "-".join(kinds or "-"), *kinds))
    assert ALL.works_for("registry")


@pytest.mark.parametrize("played", [[Role.GATEWAY], [Role.WORKER], [Role.RECORDER], [Role.GATEWAY, Role.WORKER]])
def test_some_roles_need_a_store_and_a_broker_that_others_reach(tmp_path: Path, played: list[Role]) -> None:
    roles = Roles.of(played, [])
    roles.check(on(tmp_path / "shared", "postgres", "kafka"))
    with pytest.raises(RolesUnfit, match=r'store\.kind = "sqlite"'):
        roles.check(on(tmp_path / "sqlite"))
    with pytest.raises(RolesUnfit, match=r'broker\.kind = "local"'):
        roles.check(on(tmp_path / "local", "postgres"))


def test_a_worker_works_for_the_systems_that_are_named(tmp_path: Path) -> None:
    catalogue = on(tmp_path, "postgres", "kafka")
    roles = Roles.of([Role.WORKER], ["registry"])
    roles.check(catalogue)
    assert roles.works_for("registry")
    assert not roles.works_for("another")
    assert not Roles.of([Role.GATEWAY], []).works_for("registry")
    with pytest.raises(RolesUnfit, match="there is no system 'registri'; did you mean 'registry'"):
        Roles.of([Role.WORKER], ["registri"]).check(catalogue)
    with pytest.raises(RolesUnfit, match="only a worker works for some systems"):
        Roles.of([Role.GATEWAY], ["registry"]).check(catalogue)


async def test_a_node_opens_the_adapters_of_its_systems_and_describes_those_of_all(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    deployment.system("archive", adapter="puppet")
    catalogue = build(deployment.write())
    runtime = Runtime(works_for=Roles.of([Role.WORKER], ["registry"]).works_for)
    await runtime.open(catalogue)
    try:
        assert list(runtime.health()) == list(runtime.breakers()) == ["registry"]
        assert runtime.codes("archive") == {"not_found": "There is no such person"}
    finally:
        await runtime.close()


async def refusal(deployment: Deployment, *options: str, status: int = 2) -> list[str]:
    deployment.write()
    node = RunningNode(deployment, [GSB, "serve", deployment.folder, *options])
    with suppress(RuntimeError):
        await node.start()
    assert await node.ended() == status
    return list(node.log)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--role", "gateway"], 'gsb: cannot start: with store.kind = "sqlite" one node plays every role'),
        (["--system", "registry"], 'gsb: cannot start: with store.kind = "sqlite" one node plays every role'),
    ],
)
async def test_what_would_lose_work_is_refused_in_one_line(tmp_path: Path, options: Collection[str], said: str) -> None:
    (line,) = await refusal(standard(tmp_path), *options)
    assert line.startswith(said)


async def test_an_unknown_system_is_refused_in_one_line(tmp_path: Path) -> None:
    deployment = spread(standard(tmp_path), NOWHERE, [8080], "127.0.0.1:1")
    (line,) = await refusal(deployment, "--role", "worker", "--system", "registri")
    assert line == "gsb: cannot start: there is no system 'registri'; did you mean 'registry'?"


async def test_a_store_that_cannot_be_reached_is_one_line_and_may_be_reached_later(tmp_path: Path) -> None:
    (line,) = await refusal(spread(standard(tmp_path), NOWHERE, [8080]), status=1)
    assert line.startswith("gsb: cannot start: the store on PostgreSQL cannot be opened: ")


async def test_an_unknown_role_and_a_port_that_is_none_are_refused(tmp_path: Path) -> None:
    for options, named in ((["--role", "sweeper"], "sweeper"), (["--port", "70000"], "65535")):
        assert named in "\n".join(await refusal(standard(tmp_path / named), *options))
