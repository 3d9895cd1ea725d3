"""The PostgreSQL store keeps the contract, and what only it can promise: many nodes on one database, lost connections.

The server is real: see ``tests.support.postgres``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from gsb.store.contract import Store
from tests.store_contract import StoreContract
from tests.support.postgres import some_server
from tests.support.stores import PostgresMaker, new
from tests.test_threat_model import table

KEY = bytes(range(32))


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with some_server() as found:
        yield found


@pytest.fixture
async def maker(dsn: str) -> AsyncIterator[PostgresMaker]:
    made = PostgresMaker(dsn, KEY)
    yield made
    await made.drop()


class TestContract(StoreContract):
    async def entries(self, maker: PostgresMaker) -> int:  # type: ignore[override]
        return int((await maker.rows("SELECT count(*) FROM entry"))[0][0])

    async def deleted(self, store: Store, maker: PostgresMaker) -> Store:  # type: ignore[override]
        """The first commit of a store looks for what has reached its age; closing it waits for that."""
        await store.close()
        store = await maker.open()
        await store.spend("(test)", new().id, 1)
        await store.close()
        return await maker.open()

    async def everything(self, maker: PostgresMaker) -> bytes:  # type: ignore[override]
        tables = await maker.rows("SELECT tablename FROM pg_tables WHERE schemaname = $1", maker.schema)
        cells = [
            cell for (table,) in tables for row in await maker.rows(f"SELECT * FROM {table}") for cell in row.values()
        ]
        return b"".join(cell if isinstance(cell, bytes) else str(cell).encode() for cell in cells)


async def test_stored_columns_are_those_of_the_threat_model(maker: PostgresMaker) -> None:
    """Those that SQLite has too are told there; what only PostgreSQL has, in a table of its own."""
    await maker.open()
    found = await maker.rows(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = $1 AND table_name IN "
        "(SELECT tablename FROM pg_tables WHERE schemaname = $1)",
        maker.schema,
    )
    shared = {(name, column) for name, column, _ in table(["table", "column", "form"])}
    own = {(name, column) for name, column, _ in table(["table on PostgreSQL", "column", "form"])}
    assert {tuple(each) for each in found} - shared == own
