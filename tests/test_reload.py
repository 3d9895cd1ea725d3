"""Reload of a real node: what changes, what stays, what is refused, and what is proved of it."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from gsb import reload as module
from gsb.backends import SqliteTable
from gsb.catalogue import Catalogue, build
from gsb.client import BusProblem
from gsb.errors import StoreUnavailable
from gsb.load import ConfigInvalid
from gsb.model import Entry
from gsb.store.seal import read_key
from gsb.store.sqlite import SqliteStore
from tests.support.bus import PERSON_BODY, READ
from tests.support.deployment import Deployment, closed, standard
from tests.support.node import InProcess, node_in_process
from tests.support.reloading import Ear, Records, acts, mount, remount

SCHEMA = closed({"id": {"type": "string"}}, {"id": "x"})


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[InProcess]:
    async with node_in_process(tmp_path) as node:
        yield node


@pytest.fixture
def ear() -> Iterator[Ear]:
    """Hears what the reloader logs."""
    ear = Ear()
    handler, logger = Records(ear), logging.getLogger("gsb.reload")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield ear
    logger.removeHandler(handler)
    logger.setLevel(level)


def facts(caplog: pytest.LogCaptureFixture, message: str) -> list[dict[str, Any]]:
    return [getattr(record, "facts", {}) for record in caplog.records if record.getMessage() == message]


async def reload(node: InProcess) -> bool:
    node.deployment.write()
    return await node.node.reloader.reload("signal")


def offer(deployment: Deployment, service: str, agreement: str) -> None:
    """One more service, on a system of its own, granted to payroll."""
    deployment.system(service.partition("/")[0])
    deployment.service(service, request=SCHEMA, reply=SCHEMA)
    deployment.agreement(agreement, grants=[{"service": service, "purpose": "payroll", "fields": [""]}])


def withdraw(deployment: Deployment, *files: str) -> None:
    for file in files:
        del deployment.files[file]
        (deployment.folder / file).unlink()


async def refusal(node: InProcess, service: str = READ, body: Any = PERSON_BODY) -> str:
    async with node.client() as client:
        with pytest.raises(BusProblem) as raised:
            await client.call(service, body, purpose="payroll", timeout=5.0)
    return str(raised.value.code)


# --- what changes


async def test_a_new_service_becomes_callable_and_the_change_is_an_entry(node: InProcess) -> None:
    old = node.node.bus.catalogue.digest
    assert await refusal(node, "archive/file/v1", {"id": "x"}) == "service_unknown"
    offer(node.deployment, "archive/file/v1", "a-2")
    assert await reload(node)
    new = node.node.bus.catalogue.digest
    assert new == build(node.deployment.folder).digest != old
    async with node.client() as client:
        result = await client.call("archive/file/v1", {"id": "x"}, purpose="payroll")
    assert (result.status, result.requests) == (200, 1)
    (act,) = acts(node.deployment.folder)
    assert (act["act"], act["cause"], act["old"], act["new"]) == ("reload", "signal", old, new)


async def test_a_removed_system_is_gone_and_comes_back(node: InProcess) -> None:
    files = ("systems/archive.toml", "services/archive/file/v1.toml", "agreements/a-2.toml")
    for _ in range(2):
        offer(node.deployment, "archive/file/v1", "a-2")
        assert await reload(node)
        async with node.client() as client:
            assert (await client.call("archive/file/v1", {"id": "x"}, purpose="payroll")).requests == 1
        withdraw(node.deployment, *files)
        assert await reload(node)
        assert await refusal(node, "archive/file/v1", {"id": "x"}) == "service_unknown"
    assert list(node.node.bus.runtime.health()) == ["registry"]
    assert [set(systems) for systems, _ in node.node.bus.broker._consumers] == [{"registry"}]  # type: ignore[attr-defined]


async def test_a_removed_grant_refuses(node: InProcess) -> None:
    async with node.client() as client:
        assert (await client.call(READ, PERSON_BODY, purpose="payroll")).status == 200
    del node.deployment.files["agreements/a-1.toml"]["grants"][0]
    assert await reload(node)
    assert await refusal(node) == "grant_missing"


async def test_a_changed_adapter_setting_takes_effect(node: InProcess) -> None:
    person = {"id": "P-0001", "name": "Grace", "salary": {"amount": "1.00", "currency": "XOF"}, "phones": []}
    node.deployment.files[f"services/{READ}.toml"]["settings"] = {"reply": person}
    assert await reload(node)
    async with node.client() as client:
        assert (await client.call(READ, PERSON_BODY, purpose="payroll")).body["name"] == "Grace"


async def test_a_budget_survives(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    deployment.files["agreements/a-1.toml"]["grants"][0]["rate"] = {"per_minute": 1, "burst": 1}
    async with node_in_process(tmp_path, deployment) as node:
        async with node.client() as client:
            assert (await client.call(READ, PERSON_BODY, purpose="payroll")).status == 200
        deployment.files["agreements/a-1.toml"]["title"] = "Another title"
        assert await reload(node)
        assert await refusal(node) == "rate_exceeded"


# --- what is refused


async def test_an_invalid_one_changes_nothing_and_every_finding_is_told(
    node: InProcess, caplog: pytest.LogCaptureFixture
) -> None:
    old = node.node.bus.catalogue
    node.deployment.files["systems/registry.toml"] |= {"adapter": "ecco", "timeout": "long"}
    node.deployment.files["agreements/a-1.toml"]["consumer"] = "payrol"
    caplog.set_level(logging.INFO, "gsb.reload")
    assert not await reload(node)
    assert node.node.bus.catalogue is old
    told = [each["finding"] for each in facts(caplog, "reload finding")]
    with pytest.raises(ConfigInvalid) as invalid:
        build(node.deployment.folder)
    assert told == [str(finding) for finding in invalid.value.findings]
    assert len(told) > 1
    (act,) = acts(node.deployment.folder)
    assert (act["act"], act["old"], act["findings"]) == ("reload_refused", old.digest, len(told))
    assert "new" not in act
    async with node.client() as client:
        assert (await client.call(READ, PERSON_BODY, purpose="payroll")).status == 200


async def test_what_needs_a_restart_is_refused_by_name(node: InProcess, caplog: pytest.LogCaptureFixture) -> None:
    gsb = node.deployment.gsb
    gsb["bus"] |= {"id": "bus.other"}
    gsb["listen"] |= {"port": gsb["listen"]["operations_port"], "operations_port": gsb["listen"]["port"]}
    gsb["store"] |= {"path": "other.db"}
    gsb["log"] |= {"idle": 60}
    gsb["retention"] = {"keys_days": 31}
    gsb["limits"] |= {"wait": 1}
    caplog.set_level(logging.INFO, "gsb.reload")
    assert not await reload(node)
    told = [each["finding"] for each in facts(caplog, "reload finding")]
    assert sorted(line.split(": ")[1] for line in told) == [
        "bus.id",
        "listen.operations_port",
        "listen.port",
        "log.idle",
        "retention.keys_days",
        "store.path",
    ]
    assert all("restart" in line for line in told)


async def test_a_folder_that_is_gone_is_refused(node: InProcess, caplog: pytest.LogCaptureFixture) -> None:
    folder = node.deployment.folder
    folder.rename(folder.with_name("elsewhere"))
    assert not await node.node.reloader.reload("signal")
    (told,) = facts(caplog, "reload finding")
    assert str(folder) in told["finding"]
    folder.with_name("elsewhere").rename(folder)
    assert await node.node.reloader.reload("signal")


class Store(SqliteStore):
    """A store that tells what was in force when an act was noted, and takes none while it is ``full``."""

    full = False
    seen: list[str]
    node: InProcess | None = None

    async def note(self, entry: Entry, **spent: Any) -> None:
        if self.full:
            raise StoreUnavailable
        await super().note(entry, **spent)
        if self.node is not None:
            self.seen.append(self.node.node.bus.catalogue.digest)


def make_store(catalogue: Catalogue) -> Store:
    table = catalogue.gsb.store
    assert isinstance(table, SqliteTable)
    store = Store(table.path, read_key(table.key))
    store.seen = []
    return store


async def test_nothing_changes_before_its_entry_is_durable(tmp_path: Path) -> None:
    async with node_in_process(tmp_path, make_store=make_store) as node:
        store = node.node.bus.store
        assert isinstance(store, Store)
        old = node.node.bus.catalogue.digest
        node.deployment.files["systems/registry.toml"]["timeout"] = 5
        store.full = True
        assert not await reload(node)
        assert (node.node.bus.catalogue.digest, acts(node.deployment.folder)) == (old, [])
        store.full, store.node = False, node
        assert await reload(node)
        assert (store.seen, node.node.bus.catalogue.digest != old) == ([old], True)


# --- the files while they are read


async def test_files_that_change_while_they_are_read_are_read_again(
    node: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = iter(["one", "two"])

    def changing(folder: Path) -> Catalogue:
        catalogue = build(folder)
        if title := next(turns, None):
            node.deployment.files["agreements/a-1.toml"]["title"] = title
            node.deployment.write()
        return catalogue

    monkeypatch.setattr(module, "build", changing)
    assert await reload(node)
    assert node.node.bus.catalogue.agreements["a-1"].title == "two"


async def test_files_that_never_stand_still_are_refused(node: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    def changing(folder: Path) -> Catalogue:
        node.deployment.write()
        return build(folder)

    monkeypatch.setattr(module, "build", changing)
    assert not await reload(node)
    assert acts(node.deployment.folder)[0]["act"] == "reload_refused"


async def test_foreign_code_that_fails_ends_neither_the_node_nor_the_next_reload(
    node: InProcess, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(folder: Path) -> Catalogue:
        raise RuntimeError("an adapter's settings")

    with monkeypatch.context() as patch:
        patch.setattr(module, "build", failing)
        node.node.reloader._asked.set()
        await ear.hear("reload failed", 1)
    node.node.reloader._asked.set()
    await ear.hear("reloaded", 1)
    assert not node.node.failed.is_set()


# --- watching


async def test_a_watcher_takes_up_edits_and_mends(tmp_path: Path, ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.05)
    deployment = standard(tmp_path)
    deployment.gsb["reload"] = "watch"
    async with node_in_process(tmp_path, deployment) as node:
        offer(deployment, "archive/file/v1", "a-2")
        deployment.write()
        await ear.hear("reloaded", 1)
        async with node.client() as client:
            assert (await client.call("archive/file/v1", {"id": "x"}, purpose="payroll")).status == 200
        schema = deployment.folder / "schemas/archive/file/v1/reply.json"
        text = schema.read_text()
        schema.write_text("{")
        await ear.hear("reload refused", 1)
        schema.write_text(text)
        await ear.hear("reloaded", 2)
        found = [(act["act"], act["cause"]) for act in acts(deployment.folder)]
        assert found == [("reload", "watch"), ("reload_refused", "watch"), ("reload", "watch")]


async def test_a_watcher_sees_the_links_of_a_config_map_swapped(
    tmp_path: Path, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.05)
    deployment = standard(tmp_path)
    deployment.gsb["reload"] = "watch"
    folder = deployment.write()
    mount(folder, "..one")
    async with node_in_process(tmp_path, deployment) as node:
        shutil.copytree(folder / "..one", folder / "..two")
        agreement = folder / "..two/agreements/a-1.toml"
        times = agreement.stat()
        agreement.write_text(agreement.read_text().replace("Agreement a-1", "Agreement b-2"))
        # Sizes and times are the same in both versions: only where the links lead tells them apart.
        os.utime(agreement, ns=(times.st_atime_ns, times.st_mtime_ns))
        remount(folder, "..two")
        await ear.hear("reloaded", 1)
        assert node.node.bus.catalogue.digest == build(folder).digest
        remount(folder, "..one")
        await ear.hear("reloaded", 2)
        assert [act["old"] for act in acts(folder)] == [act["new"] for act in acts(folder)][::-1]


async def test_a_watcher_tries_again_what_the_store_did_not_take(
    tmp_path: Path, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.05)
    deployment = standard(tmp_path)
    deployment.gsb["reload"] = "watch"
    async with node_in_process(tmp_path, deployment, make_store=make_store) as node:
        store = node.node.bus.store
        assert isinstance(store, Store)
        store.full = True
        deployment.files["agreements/a-1.toml"]["title"] = "Another title"
        deployment.write()
        await ear.hear("reload not taken up", 2)
        store.full = False
        await ear.hear("reloaded", 1)
        assert node.node.bus.catalogue.agreements["a-1"].title == "Another title"
