"""``gsb serve``: what it takes, and, where it cannot start, one line that says why, and nothing else.

Exit 1 for what may pass by itself, 2 for what does not.
"""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from gsb.config import Listen
from gsb.node import check_held
from gsb.store.seal import new_key
from tests.support.adapters import GOOD, install
from tests.support.deployment import Deployment, standard
from tests.support.node import GSB, RunningNode, running_node
from tests.support.sockets import answering


async def refusal(
    deployment: Deployment, status: int, command: Sequence[str | Path] | None = None, held: Sequence[int] = ()
) -> str:
    """The one line that a node writes which cannot start."""
    node = RunningNode(deployment, command, held=held)
    with suppress(RuntimeError):  # unless another node answers at its address
        await node.start()
    assert await node.ended() == status
    (line,) = node.log
    return line


async def handed(door: socket.socket, deployment: Deployment) -> str:
    """The one line that a node writes which cannot start with this socket, as systemd hands it over."""
    given = f'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@" 3<&{door.fileno()}'
    command = ["bash", "-c", given, str(GSB), "serve", str(deployment.write())]
    return await refusal(deployment, 2, command, [door.fileno()])


async def test_a_store_that_another_node_has_open(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        said = await refusal(node.deployment, 1)
    assert said.startswith("gsb: cannot start: ")
    assert said.endswith("store.db: another process has this store open")


async def test_a_store_that_was_sealed_with_another_key(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        deployment = node.deployment
    (deployment.folder / "store.key").write_text(new_key())
    assert (await refusal(deployment, 2)).endswith("store.db: the store was sealed with another key")


async def test_an_address_that_is_taken(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    async with answering(b"") as taken:
        deployment.files["gsb.toml"]["listen"]["port"] = taken.port
        deployment.write()
        said = await refusal(deployment, 1)
    assert said.startswith("gsb: cannot start: ")
    assert f"('127.0.0.1', {taken.port})" in said


async def test_a_place_that_cannot_be_written_may_be_written_later(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    store = deployment.write() / deployment.gsb["store"]["path"]
    store.with_name(f"{store.name}.lock").mkdir()
    assert f"'{store}.lock'" in await refusal(deployment, 1)


async def test_a_deployment_that_is_not_there_is_not_tried_again(tmp_path: Path) -> None:
    said = await refusal(standard(tmp_path), 2, [str(GSB), "serve", str(tmp_path / "nowhere")])
    assert said == f"gsb: cannot start: there is no folder {tmp_path / 'nowhere'}"


async def test_a_store_that_is_none_is_not_tried_again(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    deployment.write()
    (deployment.folder / deployment.gsb["store"]["path"]).write_text(
        "a text, of more than a database's first bytes. " * 9
    )
    assert "cannot be opened" in await refusal(deployment, 2)


async def test_a_socket_that_is_handed_over_takes_no_plain_http_from_elsewhere(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as door:
        said = await handed(door, standard(tmp_path))
    assert said == (
        "gsb: cannot start: the socket that is handed over listens on 0.0.0.0; plain HTTP is only for loopback "
        'addresses: set listen.tls, or listen.tls = "upstream"'
    )


async def test_a_socket_that_is_no_address_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "door"))
        door.listen()
        said = await handed(door, standard(tmp_path))
    assert said == "gsb: cannot start: the socket that is handed over is not of TCP: ListenStream= takes ADDRESS:PORT"


def test_which_sockets_may_be_handed_over() -> None:
    plain, protected = Listen(), Listen(tls="upstream")
    with socket.create_server(("127.0.0.1", 0)) as near, socket.create_server(("0.0.0.0", 0)) as far:
        check_held(near, plain)
        check_held(near, protected)
        check_held(far, protected)
        with pytest.raises(ValueError, match="plain HTTP"):
            check_held(far, plain)
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as near:
        check_held(near, plain)
    with socket.create_server(("::", 0), family=socket.AF_INET6) as far, pytest.raises(ValueError, match="on ::;"):
        check_held(far, plain)
    with socket.socket(type=socket.SOCK_DGRAM) as door, pytest.raises(ValueError, match="not of TCP"):
        check_held(door, protected)


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
