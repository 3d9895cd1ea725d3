"""``gsb serve``: what it takes, and, where it cannot start, one line that says why, exit 2, and nothing else."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from pathlib import Path

import pytest

from gsb.store.seal import new_key
from tests.support.adapters import GOOD, install
from tests.support.deployment import Deployment, standard
from tests.support.node import RunningNode, running_node
from tests.support.sockets import answering


async def refusal(deployment: Deployment) -> str:
    """The one line that a node writes which cannot start."""
    node = RunningNode(deployment)
    with suppress(RuntimeError):  # unless another node answers at its address
        await node.start()
    assert await node.ended() == 2
    (line,) = node.log
    return line


async def test_a_store_that_another_node_has_open(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        said = await refusal(node.deployment)
    assert said.startswith("gsb: cannot start: ")
    assert said.endswith("store.db: another process has this store open")


async def test_a_store_that_was_sealed_with_another_key(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        deployment = node.deployment
    (deployment.folder / "store.key").write_text(new_key())
    assert (await refusal(deployment)).endswith("store.db: the store was sealed with another key")


async def test_an_address_that_is_taken(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    async with answering(b"") as taken:
        deployment.files["gsb.toml"]["listen"]["port"] = taken.port
        deployment.write()
        said = await refusal(deployment)
    assert said.startswith("gsb: cannot start: ")
    assert f"('127.0.0.1', {taken.port})" in said


async def test_an_adapter_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    install(site, "wrong_made", GOOD + "    def __init__(self, context):\n        raise KeyError('of a table')\n")
    deployment = Deployment(tmp_path)
    deployment.system("registry", adapter="wrong")
    deployment.write()
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    node = RunningNode(deployment)
    with pytest.raises(RuntimeError):
        await node.start()
    assert await node.ended() == 2
    assert list(node.log) == [
        "systems/registry.toml: adapter: the adapter 'wrong' cannot be made: KeyError: 'of a table'",
        f"gsb: {deployment.folder} is not a deployment that can run; mend the findings above",
    ]


async def test_it_may_open_as_many_files_as_it_can_allow_itself(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft > 256, "the test lowers what the node is given"
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        async with running_node(tmp_path) as node:
            assert resource.prlimit(node.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
