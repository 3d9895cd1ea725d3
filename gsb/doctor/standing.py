"""What a node stands on, looked at without being opened: its store and its Kafka.

Whether the store is there, ours, of a layout that this program knows, and safe; whether Kafka answers, and its topics
are as they should be. Nothing is made or migrated, so a node may be at work on it. A crash means nothing.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

from gsb.backends import KafkaTable, PostgresTable, SqliteTable
from gsb.broker.contract import BrokerUnfit
from gsb.broker.topics import topics
from gsb.bus import CLOCK_OFF
from gsb.catalogue import Catalogue
from gsb.doctor.found import Found, trouble, warning, well
from gsb.dsn import DsnUnfit, read_dsn
from gsb.lint_backends import KAFKA, POSTGRES
from gsb.store.contract import StoreUnfit
from gsb.store.sqlite.opened import moved
from gsb.store.sqlite.rows import VERSION

if KAFKA:
    from aiokafka.errors import TopicAuthorizationFailedError

    from gsb.broker.kafka.admin import Topics
    from gsb.broker.kafka.clients import GONE
if POSTGRES:
    import asyncpg

    from gsb.store.postgres.layout import migrations, tables
    from gsb.store.postgres.sessions import OF_THE_DATABASE, Sessions, database_clock, refuse_forgetful

THROUGH = 1024**3
"""Bytes of a database on SQLite up to which it is read through here, in seconds, beside a node that needs the disk."""
FULL = 0.9
"""Of a server's connections, above which the next node may find none."""


async def store(catalogue: Catalogue) -> AsyncIterator[Found]:
    """Whichever the deployment has."""
    table = catalogue.gsb.store
    if isinstance(table, PostgresTable):
        async for found in _postgres(table):
            yield found
    else:
        for found in await asyncio.to_thread(lambda: list(_sqlite(table))):
            yield found


def _sqlite(table: SqliteTable) -> Iterator[Found]:
    path = table.path
    if (mark := moved(path)).exists():
        yield trouble("store", f"{path} was carried to {mark.read_text('utf-8').strip()}", "use the deployment there")
    elif not path.exists():
        yield well("store", f"{path} is not there yet: the first start makes it")
    else:
        yield _file(path)


def _file(path: Path) -> Found:
    restore = "restore the newest backup, then gsb restore"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            through = (size := path.stat().st_size) <= THROUGH
            (said,) = db.execute("PRAGMA quick_check(1)").fetchone() if through else ("ok",)
    except sqlite3.Error as error:
        return trouble("store", f"{path} cannot be read: {error}", restore)
    if version > VERSION:
        return trouble("store", f"{path} has layout {version}, this program knows {VERSION}", "start the newer program")
    if said != "ok":
        return trouble("store", f"{path} is damaged: {said}", restore)
    if not through:
        by_hand = f"sqlite3 -readonly {path} 'PRAGMA quick_check' does, in minutes"
        return well("store", f"{path} has layout {version}; {size / 1024**3:.1f} GiB were not read through: {by_hand}")
    return well("store", f"{path} is whole, layout {version}")


async def _postgres(table: PostgresTable) -> AsyncIterator[Found]:
    way = "look at the server, at what lies between, and at the file of the dsn"
    try:
        sessions = Sessions(read_dsn(table.dsn), table.schema_name)
        began = time.monotonic()
        db = await sessions.connect()
    except DsnUnfit as error:
        yield trouble("store", f"{table.dsn} {error}", "write one line with a URI into it")
        return
    except OF_THE_DATABASE as error:
        # Its text names hosts, users and databases; of a password it says at most that it was wrong.
        yield trouble("store", f"PostgreSQL cannot be reached: {type(error).__name__}: {error}", way)
        return
    try:
        yield well("store", f"PostgreSQL {_version(db)} answers after {(time.monotonic() - began) * 1000:.0f} ms")
        yield _clock(time.time() - await database_clock(db))
        for look in (_safe, _layout, _room):
            yield await look(db, table.schema_name)
    except OF_THE_DATABASE as error:
        yield trouble("store", f"PostgreSQL does not answer: {type(error).__name__}: {error}", way)
    finally:
        db.terminate()


def _version(db: asyncpg.Connection) -> str:
    version = db.get_server_version()
    return f"{version.major}.{version.minor}"


def _clock(offset: float) -> Found:
    said = f"this machine's clock is {abs(offset):.1f} s {'ahead of' if offset > 0 else 'behind'} the store's"
    if abs(offset) > CLOCK_OFF:
        return trouble("clock: store", said, "set both right: a node that is so far off is not ready")
    return well("clock: store", said)


async def _safe(db: asyncpg.Connection, schema: str) -> Found:
    try:
        await refuse_forgetful(db)
    except StoreUnfit as error:
        return trouble("store: durable", str(error), "switch it on, or use a server that keeps what it says it keeps")
    return well("store: durable", "what is committed is on the disk")


async def _layout(db: asyncpg.Connection, schema: str) -> Found:
    if "layout" not in await migrations.tables(db, schema):
        return well("store: layout", f"schema {schema} is empty: the first start makes the tables")
    version, oldest = await db.fetchrow("SELECT version, oldest FROM layout")
    known = tables.VERSION
    said = f"layout {version}, and programs that know {oldest} or later may work on it; this one knows {known}"
    if oldest > known:
        return trouble("store: layout", said, "start the newer program, or go back to a backup of before")
    if version < known:
        return warning("store: layout", said, "gsb prepare brings it up to date, as this version's first node does")
    return well("store: layout", said)


async def _room(db: asyncpg.Connection, schema: str) -> Found:
    used = await db.fetchval("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
    most = int(await db.fetchval("SELECT current_setting('max_connections')"))
    said = f"{used} of {most} connections are in use"
    if used > FULL * most:
        return warning("store: connections", said, "raise max_connections, or lower [store] connections of the nodes")
    return well("store: connections", said)


async def kafka(catalogue: Catalogue) -> AsyncIterator[Found]:
    """Nothing where the deployment has none."""
    table = catalogue.gsb.broker
    if not isinstance(table, KafkaTable):
        return
    wanted = topics(table, catalogue.systems)
    try:
        async with Topics(table) as there:
            try:
                differences, seen = await there.plan(wanted), "as they should be"
            except TopicAuthorizationFailedError:  # nodes need not see settings, so their user may not be allowed to
                differences, seen = await there.outline(wanted), "there; their settings may not be seen by this user"
    except BrokerUnfit as error:
        yield trouble("kafka", str(error), "mend what [broker] names")
        return
    except GONE as error:
        yield trouble(
            "kafka",
            f"it cannot be asked: {type(error).__name__}: {error}",
            "look at its brokers, at what lies between, and at what they allow this user; until then work waits in the "
            "store, and callers are answered 202",
        )
        return
    yield well("kafka", "its brokers answer")
    if not differences:
        yield well("topics", f"all {len(wanted)} are {seen}")
    for each in differences:
        said, do = str(each), "by hand, as said" if each.by_hand else "gsb topics apply"
        what = f"topic: {each.topic}"
        # Without its topic a system gets no work; whatever else differs makes it slower or less safe.
        yield trouble(what, said, do) if each.what == "topic" else warning(what, said, do)
