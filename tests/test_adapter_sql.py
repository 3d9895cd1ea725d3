"""The SQL adapter on real SQLite files, with other connections in its way."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from gsb.check import check
from gsb.sdk import Broken, Context, Http, Refused, Unavailable
from gsb_adapters.sql import Sql
from gsb_adapters.sql.settings import SqlSettings, Statement, check_statement
from tests.support.adapters import opened, request
from tests.support.deployment import Deployment

SETTINGS = {"url": "sqlite+aiosqlite:///people.sqlite", "lock_wait": 0.05}

SCHEMA = """
CREATE TABLE people (id TEXT PRIMARY KEY, name TEXT NOT NULL, salary TEXT NOT NULL, bonus REAL, photo BLOB);
CREATE TABLE slips (id INTEGER PRIMARY KEY, exchange TEXT NOT NULL, person TEXT NOT NULL REFERENCES people (id),
    period TEXT NOT NULL, amount TEXT NOT NULL, UNIQUE (person, period));
INSERT INTO people VALUES ('P-1', 'Ada', '1234.50', 0.1, NULL), ('P-2', 'Éloïse; DROP', '99.00', 12.5, x'00');
"""

SERVICES: dict[str, dict[str, Any]] = {
    "hrmis/person/v1": {
        "statement": "SELECT id, name, salary, bonus FROM people WHERE id = :id",
        "parameters": {"id": "body.id"},
        "reply": {
            "id": "rows[0].id",
            "name": "rows[0].name",
            "salary": "decimal(rows[0].salary, `2`)",
            "bonus": "decimal(rows[0].bonus, `2`)",
        },
        "empty": "not_found",
    },
    "hrmis/list/v1": {
        "statement": "SELECT id FROM people ORDER BY id -- all of them",
        "reply": {"ids": "rows[*].id", "count": "rowcount"},
        "most_rows": 2,
    },
    "hrmis/photo/v1": {"statement": "SELECT photo FROM people WHERE photo IS NOT NULL", "reply": "rows"},
    "hrmis/slip/v1": {
        "mode": "write",
        "statement": """INSERT INTO slips (exchange, person, period, amount)
            VALUES (:exchange, :person, :period, :amount) RETURNING id""",
        "parameters": {
            "exchange": "exchange",
            "person": "body.person",
            "period": "body.period",
            "amount": "body.amount",
        },
        "reply": {"slip": "rows[0].id", "period": "body.period"},
        "find": "SELECT id FROM slips WHERE exchange = :exchange",
    },
    "hrmis/rename/v1": {
        "mode": "write",
        "statement": "UPDATE people SET name = :name WHERE id = :id",
        "parameters": {"id": "body.id", "name": "body.name"},
        "reply": {"changed": "rowcount"},
        "empty": "not_found",
    },
}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "people.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA)
    return path


@pytest.fixture
async def hrmis(database: Path) -> AsyncIterator[Sql]:
    async with opened(Sql, SETTINGS, SERVICES, folder=database.parent) as adapter:
        yield adapter


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    """What another program sees."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


@contextmanager
def writing(database: Path) -> Iterator[None]:
    """Another program that has begun to write and takes its time."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def slip(person: str = "P-1", period: str = "2026-09") -> Any:
    return request("hrmis/slip/v1", {"person": person, "period": period, "amount": "10.00"})


# --- reads and writes


async def test_a_read_gives_amounts_as_decimal_strings(hrmis: Sql) -> None:
    reply = await hrmis.handle(request("hrmis/person/v1", {"id": "P-1"}))
    assert reply.body == {"id": "P-1", "name": "Ada", "salary": "1234.50", "bonus": "0.10"}


async def test_a_read_of_nothing(hrmis: Sql) -> None:
    with pytest.raises(Refused) as raised:
        await hrmis.handle(request("hrmis/person/v1", {"id": "P-9"}))
    assert raised.value.code == "not_found"


async def test_a_value_is_never_sql(hrmis: Sql, database: Path) -> None:
    for text in ("' OR '1'='1", "P-1'; DROP TABLE people; --", ":id", "\x00"):
        with pytest.raises(Refused):
            await hrmis.handle(request("hrmis/person/v1", {"id": text}))
    await hrmis.handle(request("hrmis/rename/v1", {"id": "P-1", "name": "'); DELETE FROM people; --"}))
    assert rows(database, "SELECT name FROM people ORDER BY id") == [("'); DELETE FROM people; --",), ("Éloïse; DROP",)]


async def test_a_write_is_there_for_others_when_it_returns(hrmis: Sql, database: Path) -> None:
    asked = slip()
    assert (await hrmis.handle(asked)).body == {"slip": 1, "period": "2026-09"}
    assert rows(database, "SELECT exchange, person, amount FROM slips") == [(asked.exchange, "P-1", "10.00")]


async def test_a_write_says_how_many_rows_it_touched(hrmis: Sql) -> None:
    reply = await hrmis.handle(request("hrmis/rename/v1", {"id": "P-1", "name": "Grace"}))
    assert reply.body == {"changed": 1}
    with pytest.raises(Refused) as raised:
        await hrmis.handle(request("hrmis/rename/v1", {"id": "P-9", "name": "Grace"}))
    assert raised.value.code == "not_found"


async def test_constraints_are_conflicts_and_change_nothing(hrmis: Sql, database: Path) -> None:
    await hrmis.handle(slip())
    for again in (slip(), slip(person="P-9")):  # unique, foreign key
        with pytest.raises(Refused) as raised:
            await hrmis.handle(again)
        assert raised.value.code == "conflict"
        assert "P-9" not in raised.value.detail
    assert rows(database, "SELECT count(*) FROM slips") == [(1,)]


async def test_find_knows_by_the_exchange_what_took_effect(hrmis: Sql) -> None:
    asked = slip()
    assert await hrmis.find(asked) is None
    written = await hrmis.handle(asked)
    found = await hrmis.find(asked)
    assert found is not None
    assert found.body == written.body
    assert await hrmis.find(slip(period="2026-10")) is None
    assert await hrmis.find(request("hrmis/rename/v1", {"id": "P-1", "name": "x"})) is None


async def test_a_read_that_writes_is_undone(database: Path) -> None:
    sneaky = {"statement": "WITH x AS (SELECT 'P-1' AS id) DELETE FROM people WHERE id IN x", "reply": "rowcount"}
    async with opened(Sql, SETTINGS, {"hrmis/sneaky/v1": sneaky}, folder=database.parent) as adapter:
        await adapter.handle(request("hrmis/sneaky/v1", {}))
    assert rows(database, "SELECT count(*) FROM people") == [(2,)]


async def test_many_at_once(hrmis: Sql, database: Path) -> None:
    hundred = [slip(period=f"{number}") for number in range(100)]
    waiting = asyncio.Semaphore(8)

    async def record(asked: Any) -> None:
        async with waiting:
            while not await recorded(asked):
                pass

    async def recorded(asked: Any) -> bool:
        try:
            await hrmis.handle(asked)
        except Unavailable as error:
            if error.sent:
                raise
            return False
        return True

    await asyncio.gather(*map(record, hundred))
    assert rows(database, "SELECT count(*), count(DISTINCT exchange) FROM slips") == [(100, 100)]


# --- trouble


async def test_a_busy_database_took_nothing(hrmis: Sql, database: Path) -> None:
    with writing(database):
        with pytest.raises(Unavailable, match="BUSY") as raised:
            await hrmis.handle(slip())
        assert raised.value.sent is False
        await hrmis.handle(request("hrmis/person/v1", {"id": "P-1"}))
    await hrmis.handle(slip())
    assert rows(database, "SELECT count(*) FROM slips") == [(1,)]


async def test_a_commit_that_fails_may_have_been_sent(hrmis: Sql, database: Path) -> None:
    """A reader in another program keeps SQLite, without a write-ahead log, from committing."""
    with closing(sqlite3.connect(database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM people").fetchone()
        with pytest.raises(Unavailable, match="BUSY") as raised:
            await hrmis.handle(slip())
        reader.execute("ROLLBACK")
    assert raised.value.sent is True
    await hrmis.handle(slip())
    assert rows(database, "SELECT count(*) FROM slips") == [(1,)]


async def test_a_cancelled_call_leaves_the_adapter_usable(hrmis: Sql, database: Path) -> None:
    with writing(database):
        for _ in range(5):
            task = asyncio.create_task(hrmis.handle(slip()))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    while hrmis._running:
        await asyncio.wait(hrmis._running)
    assert rows(database, "SELECT count(*) FROM slips") == [(0,)]
    await hrmis.handle(slip())
    assert rows(database, "SELECT count(*) FROM slips") == [(1,)]


async def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "people.sqlite"
    with pytest.raises(Unavailable, match="CANTOPEN") as raised:
        async with opened(Sql, SETTINGS, SERVICES, folder=tmp_path):
            pass
    assert raised.value.sent is False
    assert not await asyncio.to_thread(path.exists)


async def test_a_file_that_is_no_database_is_broken(tmp_path: Path) -> None:
    (tmp_path / "people.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(Broken, match="NOTADB"):
        async with opened(Sql, SETTINGS, SERVICES, folder=tmp_path):
            pass


async def test_a_missing_table_is_broken(hrmis: Sql, database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript("DROP TABLE slips")
    with pytest.raises(Broken):
        await hrmis.handle(slip())


async def test_more_rows_than_allowed_are_broken(hrmis: Sql, database: Path) -> None:
    assert (await hrmis.handle(request("hrmis/list/v1", {}))).body == {"ids": ["P-1", "P-2"], "count": 2}
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript("INSERT INTO people VALUES ('P-3', 'Third', '0.00', NULL, NULL)")
    with pytest.raises(Broken, match="more than 2"):
        await hrmis.handle(request("hrmis/list/v1", {}))


async def test_a_column_that_is_not_json_is_broken(hrmis: Sql) -> None:
    with pytest.raises(Broken, match="bytes"):
        await hrmis.handle(request("hrmis/photo/v1", {}))


@pytest.mark.parametrize("value", [{"a": 1}, ["P-1"]], ids=str)
async def test_a_value_that_is_no_parameter_is_refused(hrmis: Sql, value: object) -> None:
    with pytest.raises(Refused) as raised:
        await hrmis.handle(request("hrmis/person/v1", {"id": value}))
    assert raised.value.code == "invalid"


async def test_a_password_that_cannot_be_read_at_first_is_read_later(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("word")
    table = {"url": "postgresql+asyncpg://bus@127.0.0.1:1/people", "password": str(secret)}
    async with Http(1) as http:
        adapter = Sql(Context("hrmis", SqlSettings.model_validate(table), {}, http, logging.getLogger("gsb.system")))
        secret.unlink()
        for ask in (adapter.open, adapter.check):
            with pytest.raises(Unavailable, match="secret"):
                await ask()
        secret.write_text("word")
        with pytest.raises(Unavailable, match="ConnectionRefusedError"):  # it is asked, and nothing listens there
            await adapter.check()
        await adapter.close()


async def test_nothing_is_left_open(database: Path, recwarn: pytest.WarningsRecorder) -> None:
    async with opened(Sql, SETTINGS, SERVICES, folder=database.parent) as adapter:
        await asyncio.gather(*(adapter.handle(request("hrmis/person/v1", {"id": "P-1"})) for _ in range(20)))
    await asyncio.to_thread(database.unlink)
    assert not recwarn.list


# --- settings that are refused before anything runs


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("SELECT 1; SELECT 2", "more than one"),
        ("SELECT * FROM people WHERE id = '{id}'; DROP TABLE people", "more than one"),
        ("SELECT * FROM people WHERE id = {id}", "stands for a value"),
        ("SELECT * FROM people WHERE id = ?", "stands for a value"),
        ("SELECT * FROM people WHERE id = %s", "stands for a value"),
        ("SELECT * FROM people WHERE id = %(id)s", "stands for a value"),
        ("SELECT * FROM people WHERE id = $1", "stands for a value"),
        ("DELETE FROM people", "a read begins with"),
        ("/* SELECT */ DROP TABLE people", "a read begins with"),
        ("", "a read begins with"),
        ("SELECT ' :id'", "colon"),
    ],
)
def test_an_unsafe_statement_is_refused(statement: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_statement(statement, "read")


@pytest.mark.parametrize(
    ("statement", "names"),
    [
        ("SELECT 1;", set()),
        ("select * from a where b = :b and c like '100%' and d = 'x;y?{z}'", {"b"}),
        ("SELECT :a || :b -- :c; ?", {"a", "b"}),
        ("SELECT a::text, '12:30' FROM t /* ; */ WHERE x = :x", {"x"}),
        ('SELECT "odd;name?" FROM t', set()),
        ("WITH a AS (SELECT 1) SELECT * FROM a", set()),
    ],
)
def test_a_safe_statement_tells_its_parameters(statement: str, names: set[str]) -> None:
    if "-- :c" in statement:
        statement = statement.replace(":c", "\\:c")
    assert check_statement(statement, "read") == names


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"statement": "SELECT :a"}, "the parameter :a has no value"),
        ({"statement": "SELECT 1", "parameters": {"a": "body.a"}}, "no statement uses the parameter a"),
        ({"statement": "SELECT 1", "find": "SELECT 1"}, "only a write has a find"),
        ({"statement": "INSERT INTO a VALUES (1)", "mode": "write", "find": "DELETE FROM a"}, "a read begins"),
        ({"statement": "INSERT INTO a VALUES (1)"}, "a read begins"),
        ({"statement": "SELECT 1", "mode": "write"}, "a write begins"),
        ({"statement": "SELECT 1", "reply": "rows["}, "reply"),
        ({"statement": "SELECT 1", "empty": "none"}, "not_found"),
    ],
)
def test_a_services_settings_are_checked(more: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Statement.model_validate({"reply": "rows"} | more)


def test_a_write_is_no_read_and_acts(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    (tmp_path / "people.sqlite").touch()
    deployment.system("hrmis", adapter="sql", settings=SETTINGS)
    for effect in ("none", "repeatable", "once"):
        deployment.service(f"hrmis/{effect}/v1", effect=effect, settings=SERVICES["hrmis/rename/v1"])
    deployment.service("hrmis/read/v1", settings=SERVICES["hrmis/person/v1"])
    found = [(each.file, each.where, each.message) for each in check(deployment.write())]
    assert found == [("services/hrmis/none/v1.toml", "settings", "a write acts, but the service's effect is none")]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("people.sqlite", "not a database URL"),
        ("nonesuch://x/y", "not a database URL"),
        ("sqlite:///people.sqlite", "not asynchronous"),
        ("sqlite+aiosqlite://", "names no file"),
        ("sqlite+aiosqlite:///:memory:", "names no file"),
        ("sqlite+aiosqlite://user:word@/people.sqlite", "password"),
    ],
)
def test_a_systems_settings_are_checked(url: str, says: str) -> None:
    with pytest.raises(ValidationError, match=says) as raised:
        SqlSettings.model_validate({"url": url})
    assert says != "password" or "word@" not in raised.value.errors(include_input=False)[0]["msg"]


async def test_a_connection_that_breaks_at_the_commit_may_have_been_sent(hrmis: Sql) -> None:
    """What a server that goes away in the middle of a commit looks like, which a file cannot do."""
    engine = hrmis._engine
    assert engine is not None

    @event.listens_for(engine.sync_engine, "commit")
    def lost(connection: object) -> None:
        raise OperationalError("COMMIT", {}, ConnectionResetError())

    with pytest.raises(Unavailable) as raised:
        await hrmis.handle(slip())
    assert raised.value.sent is True
