"""The layout before the newest one of the PostgreSQL store, and a program that works on either under load.

    python -m tests.support.old_layout first|newest DSN SCHEMA

Its store is that of today; as ``first`` it makes and knows the layout below, and asks of it what the program of that
time asked. It prints the id of each exchange that is acknowledged, and goes on until its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys

from gsb.store.postgres import PostgresStore, aging
from gsb.store.postgres.layout import migrations
from gsb.store.postgres.layout.portions import Portions
from tests.support.stores import done

KEY = bytes(range(32))
AT_ONCE = 4

FIRST = """
CREATE TABLE layout(version integer NOT NULL, oldest integer NOT NULL, keycheck bytea NOT NULL);
CREATE SEQUENCE numbers;
CREATE SEQUENCE spendings;
CREATE TABLE spent(
    hash bytea PRIMARY KEY, number bigint NOT NULL DEFAULT nextval('spendings'), bucket bigint NOT NULL
);
CREATE INDEX spent_bucket ON spent(bucket, number);
CREATE TABLE forgotten(bucket bigint PRIMARY KEY);
CREATE TABLE sealed(number bigint PRIMARY KEY, bytes bytea NOT NULL);
CREATE TABLE reservation(hash bytea PRIMARY KEY, exchange bigint NOT NULL);
CREATE TABLE exchange(
    number bigint PRIMARY KEY, id text COLLATE "C" NOT NULL UNIQUE, agency text COLLATE "C" NOT NULL,
    service text COLLATE "C" NOT NULL, effect text COLLATE "C" NOT NULL, purpose text NOT NULL,
    agreement text NOT NULL, fingerprint bytea NOT NULL, accepted_at double precision NOT NULL, business bytea,
    subject bytea, request bigint, key bytea, state text COLLATE "C" NOT NULL, expires_at double precision NOT NULL,
    due_at double precision, attempt integer NOT NULL, maybe_sent boolean NOT NULL, nudges integer NOT NULL,
    lease_until double precision, began_at double precision, reason text, finished_at double precision, reply bigint,
    status integer, took text, code text COLLATE "C", content_type text, fields bytea, agreement_digest text
);
CREATE INDEX exchange_accepted ON exchange(accepted_at, number);
CREATE INDEX exchange_agency ON exchange(agency, accepted_at, number);
CREATE INDEX exchange_parties ON exchange(service, agency, accepted_at, number);
CREATE INDEX exchange_state ON exchange(state, accepted_at, number) WHERE state <> 'done';
CREATE INDEX exchange_code ON exchange(code, accepted_at, number) WHERE code IS NOT NULL;
CREATE INDEX exchange_business ON exchange(business, accepted_at, number) WHERE business IS NOT NULL;
CREATE INDEX exchange_subject ON exchange(subject, accepted_at, number) WHERE subject IS NOT NULL;
CREATE INDEX exchange_due ON exchange(due_at) WHERE due_at IS NOT NULL;
CREATE INDEX exchange_keys ON exchange(finished_at) WHERE finished_at IS NOT NULL AND key IS NOT NULL;
CREATE INDEX exchange_bodies ON exchange(finished_at) WHERE finished_at IS NOT NULL AND request IS NOT NULL;
CREATE INDEX exchange_bare ON exchange(finished_at) WHERE finished_at IS NOT NULL AND key IS NULL AND request IS NULL;
CREATE TABLE entry(
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, leaf bytea NOT NULL,
    content bytea NOT NULL, exchange bigint
);
CREATE INDEX entry_exchange ON entry(exchange, number) WHERE exchange IS NOT NULL;
CREATE TABLE secret(entry bigint PRIMARY KEY, bytes bytea NOT NULL);
CREATE TABLE pending(entry bigint PRIMARY KEY);
CREATE TABLE log(
    number integer PRIMARY KEY, origin text NOT NULL UNIQUE, first_entry bigint NOT NULL, last_entry bigint,
    complete boolean NOT NULL DEFAULT false, size bigint NOT NULL DEFAULT 0, checkpoint bytea NOT NULL DEFAULT '',
    published bigint NOT NULL DEFAULT 0, published_note bytea NOT NULL DEFAULT '', published_at double precision
);
CREATE TABLE placed(log integer NOT NULL, at bigint NOT NULL, entry bigint NOT NULL UNIQUE, PRIMARY KEY (log, at));
ALTER TABLE sealed ALTER bytes SET STORAGE EXTERNAL;
ALTER TABLE secret ALTER bytes SET STORAGE EXTERNAL;
"""

BODIES = """
WITH old AS (SELECT number, request, reply FROM exchange WHERE finished_at <= $1 AND request IS NOT NULL
        ORDER BY finished_at LIMIT $2 FOR UPDATE SKIP LOCKED),
    gone AS (DELETE FROM sealed USING old WHERE sealed.number IN (old.request, old.reply))
UPDATE exchange SET request = NULL, reply = NULL FROM old WHERE exchange.number = old.number
"""


async def _untended(*_: object) -> None:
    """It knew nothing of portions."""


def be_first() -> None:
    """From here on this process is the program of the first layout."""
    migrations.VERSION, migrations.LAYOUT = 1, FIRST  # type: ignore[attr-defined]
    migrations.application = lambda schema: "gsb"
    aging._BODIES = BODIES
    Portions.tend = _untended  # type: ignore[method-assign, assignment]


async def _work(store: PostgresStore, ended: asyncio.Event) -> None:
    while not ended.is_set():
        made = await done(store)
        found = await store.exchange(made.id)
        assert found is not None
        assert found.outcome is not None
        print(made.id, flush=True)


async def main(kind: str, dsn: str, schema: str) -> None:
    if kind == "first":
        be_first()
    ended = asyncio.Event()
    store = PostgresStore(dsn, KEY, schema=schema)
    await store.open()
    work = [asyncio.create_task(_work(store, ended)) for _ in range(AT_ONCE)]
    await asyncio.to_thread(sys.stdin.read)
    ended.set()
    await asyncio.gather(*work)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
