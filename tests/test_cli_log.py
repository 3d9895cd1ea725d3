"""``gsb log key`` and ``gsb log begin``: what an auditor is handed, and a new log only where an operator says so."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gsb import jwk
from gsb.cli.main import app
from gsb.evidence.checkpoint import Verifier
from tests.support.auditor import said
from tests.support.deployment import Deployment, standard
from tests.support.node import running_node
from tests.support.recording import YEAR, recording


async def gsb(*words: str | Path) -> Result:
    """In a thread: a command has an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, [str(word) for word in words])


async def keys(deployment: Deployment) -> list[str]:
    told = await gsb("log", "key", deployment.folder)
    assert told.exit_code == 0, told.output
    return told.stdout.splitlines()


async def test_the_key_of_every_log_is_told(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    deployment.write()
    this_year = str(datetime.now(UTC).year)
    assert await keys(deployment) == [deployment.log_verifier(this_year).vkey]
    async with recording(tmp_path, deployment) as hands:
        await hands.record(1)
        assert Verifier.of((await keys(deployment))[0]) == hands.verifier()
        hands.clock.now += 366 * 86_400
        await hands.record(2)
        assert await keys(deployment) == [hands.verifier(name).vkey for name in (YEAR, str(int(YEAR) + 1))]
    (deployment.folder / "keys" / "log.jwk.json").write_bytes(jwk.generate("Ed25519"))
    told = await gsb("log", "key", deployment.folder)
    assert f"/log/{YEAR} is passed over: the note is not signed by" in told.stderr
    assert len(told.stdout.splitlines()) == 1


async def test_a_deployment_that_is_wrong_in_many_ways_is_refused_in_one_line(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    for name in ("services/registry/person/v1.toml", "services/registry/note/v1.toml"):
        deployment.files[name]["effect"] = "perhaps"
    folder = deployment.write()
    result = await gsb("log", "key", folder)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"gsb: {folder} is no right deployment: services/registry/note/v1.toml")
    assert line.endswith(f"gsb check {folder} says all")


async def test_a_new_log_is_begun_with_its_reason_committed_and_not_shown(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    async with recording(tmp_path, deployment) as hands:
        await hands.record(1)
    begun = await gsb("log", "begin", deployment.folder, "--reason", "canary: after the fire")
    assert begun.exit_code == 0, begun.output
    origin = begun.stdout.split()[-1]
    async with recording(tmp_path, deployment) as hands:
        await hands.recorder.look()
        assert (await hands.store.logs())[-1].origin == origin
        (entry,) = said(hands.contents(origin.rpartition("/")[2]))
        assert (entry["kind"], entry["log"]) == ("log_begun", origin)
        assert "canary" not in str(entry)


@pytest.mark.parametrize("reason", ["", "  x  ", "x" * 501])
async def test_a_new_log_needs_a_reason(tmp_path: Path, reason: str) -> None:
    refused = await gsb("log", "begin", standard(tmp_path).write(), "--reason", reason)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "say why" in refused.stderr


async def test_no_log_is_begun_beside_a_node_or_before_there_was_one(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    early = await gsb("log", "begin", deployment.write(), "--reason", "too early")
    assert early.exit_code == 2
    assert "there is no log yet" in early.stderr
    async with running_node(tmp_path, deployment):
        beside = await gsb("log", "begin", deployment.folder, "--reason", "beside a node")
    assert beside.exit_code == 2
    assert "no log was begun" in beside.stderr
    (deployment.folder / "gsb.toml").unlink()
    assert (await gsb("log", "key", deployment.folder)).exit_code == 2
    assert "there is no folder" in (await gsb("log", "key", tmp_path / "nowhere")).stderr
