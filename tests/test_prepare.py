"""``gsb prepare`` on a real PostgreSQL: what it makes of the tables while older programs work, and what it tells."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gsb.cli.main import app
from gsb.model import State
from gsb.store.postgres.layout.tables import VERSION
from tests.support.deployment import standard
from tests.support.layouts import before, program, shape, versions
from tests.support.old_layout import KEY
from tests.support.stores import PostgresMaker, done, state_of

Run = tuple[int, str, str]


@pytest.fixture
def folder(tmp_path: Path, maker: PostgresMaker) -> Path:
    """A folder with nothing but ``gsb.toml``, as a Job has it that begins an upgrade."""
    whole = standard(tmp_path)
    (tmp_path / "dsn").write_text(maker.dsn + "\n")
    (tmp_path / "key").write_text(urlsafe_b64encode(KEY).decode())
    whole.gsb["store"] = {
        "kind": "postgres",
        "dsn": str(tmp_path / "dsn"),
        "key": str(tmp_path / "key"),
        "schema_name": maker.schema,
    }
    alone = tmp_path / "alone"
    alone.mkdir()
    (whole.write() / "gsb.toml").rename(alone / "gsb.toml")
    return alone


async def run(folder: Path, *words: str) -> Run:
    """In a thread: a command has an event loop of its own."""
    result = await asyncio.to_thread(CliRunner().invoke, app, ["prepare", str(folder), *words])
    return result.exit_code, result.stdout, result.stderr


async def test_an_empty_schema_becomes_a_store_once(folder: Path, maker: PostgresMaker) -> None:
    assert await run(folder, "--dry-run") == (0, f"there are no tables: all of layout {VERSION} would be made\n", "")
    assert await run(folder) == (0, f"schema {maker.schema}: layout {VERSION} was made\n", "")
    made = await shape(maker)
    assert await run(folder) == (0, f"schema {maker.schema}: layout {VERSION} was there\n", "")
    assert await run(folder, "--dry-run") == (0, f"nothing to do: layout {VERSION} is there\n", "")
    assert await shape(maker) == made
    await done(await maker.open())


async def test_an_upgrade_begins_with_it_while_the_older_program_works(folder: Path, maker: PostgresMaker) -> None:
    async with program("first", maker) as old:
        await old.more()
        older = await shape(maker)
        code, shown, _ = await run(folder, "--dry-run")
        statements = shown.splitlines()
        assert (code, statements.pop()) == (0, f"layout 1 would become {VERSION}, by {len(statements)} statements")
        assert await shape(maker) == older
        code, told, tried = await run(folder)
        assert told == f"schema {maker.schema}: layout 1 has become {VERSION}; nodes of the version before go on\n"
        assert code == 0
        assert set(statements) <= set(tried.splitlines())
        assert await versions(maker) == (VERSION, 1)
        await old.more()
    async with program("newest", maker) as new:
        await new.more()
    maker.clock.now = (await maker.rows("SELECT extract(epoch FROM now())::float8"))[0][0]
    store = await maker.open()
    assert [await state_of(store, each) for each in old.acknowledged + new.acknowledged].count(State.DONE) > 40


async def test_what_is_half_done_is_gone_on_with(folder: Path, maker: PostgresMaker) -> None:
    await before(maker)
    _, shown, _ = await run(folder, "--dry-run")
    whole = shown.splitlines()[:-1]
    (index,) = (each for each in whole if each.startswith("CREATE INDEX"))
    await maker.rows(index)
    _, shown, _ = await run(folder, "--dry-run")
    left = [each for each in whole if "exchange_slow" not in each]
    assert shown.splitlines() == [*left, f"layout 1 would become {VERSION}, by {len(left)} statements"]
    assert len(left) == len(whole) - 2
    assert (await run(folder))[0] == 0
    assert await versions(maker) == (VERSION, 1)


async def test_a_store_that_is_not_fit_is_left_alone(folder: Path, maker: PostgresMaker, tmp_path: Path) -> None:
    async def refused(*words: str) -> str:
        code, told, error = await run(folder, *words)
        assert (code, told) == (2, "")
        (line,) = error.splitlines()
        return line

    await run(folder)
    await maker.rows("UPDATE layout SET version = $1, oldest = $1", VERSION + 1)
    for words in ([], ["--dry-run"]):
        assert f"the store has version {VERSION + 1}, this program knows {VERSION}" in await refused(*words)
    await maker.rows("UPDATE layout SET version = $1, oldest = $1", VERSION)
    (tmp_path / "key").write_text(urlsafe_b64encode(bytes(32)).decode())
    assert "another key" in await refused()
    (tmp_path / "key").write_text("short")
    assert "key must be" in await refused()
    (tmp_path / "key").unlink()
    assert "cannot be read" in await refused()
    (tmp_path / "key").write_text(urlsafe_b64encode(KEY).decode())
    (tmp_path / "dsn").write_text("mysql://elsewhere/db")
    assert str(tmp_path / "dsn") in await refused()
    (tmp_path / "dsn").write_text("postgresql://nobody:hidden@127.0.0.1:1/gsb")
    line = await refused()
    assert "cannot be opened" in line
    assert "hidden" not in line
    (folder / "gsb.toml").write_text("[store")
    assert "gsb.toml: is not TOML" in await refused()
    (folder / "gsb.toml").unlink()
    assert "gsb.toml: is missing" in await refused()
    assert "cannot read the deployment" in (await run(folder / "nowhere"))[2]


async def test_a_store_of_one_machine_is_left_to_its_node(tmp_path: Path) -> None:
    folder = standard(tmp_path).write()
    code, told, _ = await run(folder)
    assert (code, told) == (0, "nothing to do: a store on SQLite is left to the node that opens it\n")
    assert not (folder / "store.db").exists()
