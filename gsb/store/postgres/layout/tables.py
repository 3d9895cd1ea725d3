"""The tables of the PostgreSQL store as this program knows them.

Everything has a number in about the order of arrival, so that what is written together lies together; only jtis,
idempotency keys, business keys and subjects are found by a hash. Sealed bytes lie in a table of their own, or they
would be written anew whenever their exchange moves; it is cut by their numbers into portions, one for each day, so that
what has reached its age leaves as a whole table. Which entry has which place in which log is written down for each,
since entries of several writers are not committed in the order of their numbers.
"""

from __future__ import annotations

VERSION = 2
"""Of the layout."""
BITS = 32
"""A portion has 2 to the power of so many numbers: more than a day can use."""

REVOKED = "CREATE TABLE IF NOT EXISTS revoked(kid text PRIMARY KEY, at double precision NOT NULL)"
"""The keys that operators have revoked. Stores of this layout that were made before there was such a table are given it
by whoever starts: older programs do not miss it, so there is nothing to contract."""

LAYOUT = """
CREATE TABLE layout(version integer NOT NULL, oldest integer NOT NULL, keycheck bytea NOT NULL);
CREATE SEQUENCE numbers;
CREATE SEQUENCE spendings;
CREATE TABLE spent(
    hash bytea PRIMARY KEY, number bigint NOT NULL DEFAULT nextval('spendings'), bucket bigint NOT NULL
);
CREATE INDEX spent_bucket ON spent(bucket, number);
CREATE TABLE forgotten(bucket bigint PRIMARY KEY);
CREATE TABLE sealed(number bigint PRIMARY KEY, bytes bytea NOT NULL) PARTITION BY RANGE (number);
ALTER TABLE sealed ALTER bytes SET STORAGE EXTERNAL;
CREATE TABLE sealed_0 PARTITION OF sealed FOR VALUES FROM (MINVALUE) TO (4294967296);
CREATE TABLE sealed_rest PARTITION OF sealed DEFAULT;
CREATE TABLE portion(number bigint PRIMARY KEY, began_at double precision);
INSERT INTO portion VALUES (0);
CREATE TABLE withheld(at double precision NOT NULL);
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
CREATE INDEX exchange_slow ON exchange(request) WHERE finished_at > accepted_at + 3600 AND request IS NOT NULL;
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
ALTER TABLE secret ALTER bytes SET STORAGE EXTERNAL;
"""
