"""The floor: the least that a signed, checked and durable exchange can cost with the same parts and none of the bus.

A bare aiohttp handler with the same cryptography (it verifies the request's JWS, compares digests, seals both bodies,
commits to the evidence of both entries, signs the reply), the same reading and validation of JSON, and the same durable
commits: the same rows in the same tables, in groups, each awaited. Signatures are PyJWT's, as whoever writes a handler
takes the library that there is. It decides nothing: no agreement, replay, rate, adapter, broker, time-out,
minimisation, log or answer to anything but the good case. Run as a module it serves until SIGTERM; a crash leaves its
file behind.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import hmac
import secrets
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import orjson
import uvloop
from aiohttp import web

from gsb import strictjson
from gsb.bench.place import BUS, CONSUMER, PURPOSE, READ, SCHEMA, WRITE
from gsb.evidence.entry import make_entry
from gsb.jwk import read_private, to_base64url
from gsb.jws import REPLY_TYPE, content_digest, request_hash
from gsb.model import JSON_TYPE, Effect, Entry, State, new_id
from gsb.schema import Schema
from gsb.store.seal import RECORD, REPLY, SECRET, Seal, read_key
from gsb.store.sqlite import rows
from gsb.store.standing import Row

DIGEST = "a" * 64
"""Stands for the digest of an agreement."""
FIELDS = ("/person", "/period", "/lines")


@dataclass(slots=True)
class Group:
    """What one transaction writes."""

    new: dict[str, list[tuple[Any, ...]]] = field(default_factory=lambda: {name: [] for name in rows.TABLES})
    created: list[Row] = field(default_factory=list)
    changed: list[Row] = field(default_factory=list)
    durable: asyncio.Event = field(default_factory=asyncio.Event)


class Commits:
    """The rows of exchanges, written in groups: the next commit begins as soon as the last one is durable."""

    def __init__(self, path: Path) -> None:
        self._db = rows.connect(path, writes=True)
        rows.create(self._db, b"")
        # The journal is carried over every 32 MB, as the store does: 2,048 pages.
        self._db.execute("PRAGMA wal_autocheckpoint=2048")
        self._group = Group()
        self._numbers = dict.fromkeys(rows.TABLES, 0)
        self._some = asyncio.Event()
        self._thread = ThreadPoolExecutor(1)

    def _next(self, table: str) -> int:
        self._numbers[table] += 1
        return self._numbers[table]

    def _keep(self, sealed: bytes) -> int:
        number = self._next("sealed")
        self._group.new["sealed"].append((number, sealed))
        return number

    def _enter(self, entry: Entry, secret: bytes, exchange: int) -> None:
        number = self._next("entry")
        self._group.new["entry"].append((number, entry.leaf, entry.content, exchange))
        self._group.new["secret"].append((number, secret))

    async def accept(self, row: Row, jti: bytes, record: bytes, entry: Entry, secret: bytes) -> None:
        """Returns once it is durable, as the others do."""
        row.row, row.request = self._next("exchange"), self._keep(record)
        self._enter(entry, secret, row.row)
        self._group.new["spent"].append((self._next("spent"), jti, row.expires_at))
        if row.key is not None:
            self._group.new["reservation"].append((row.key, row.row))
        self._group.created.append(row)
        await self._durable()

    async def begin(self, row: Row) -> None:
        row.state, row.attempt, row.due_at = State.RUNNING, 1, row.expires_at
        self._group.changed.append(row)
        await self._durable()

    async def finish(self, row: Row, reply: bytes, entry: Entry, secret: bytes) -> None:
        row.state, row.attempt, row.due_at, row.finished_at = State.DONE, 1, None, time.time()
        row.status, row.took, row.content_type, row.agreement_digest = 200, "done", JSON_TYPE, DIGEST
        row.reply, row.fields = self._keep(reply), orjson.dumps(FIELDS)
        self._enter(entry, secret, row.row)
        self._group.changed.append(row)
        await self._durable()

    async def _durable(self) -> None:
        self._some.set()
        await self._group.durable.wait()

    async def work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._some.wait()
            self._some.clear()
            group, self._group = self._group, Group()
            self._db.execute("BEGIN IMMEDIATE")
            rows.update_exchanges(self._db, group.changed)
            rows.insert_exchanges(self._db, group.created)
            for table, values in group.new.items():
                rows.insert(self._db, table, values)
            await loop.run_in_executor(self._thread, self._db.execute, "COMMIT")
            group.durable.set()


class Signed(NamedTuple):
    """A request's signature, verified."""

    token: str
    claims: dict[str, Any]


class Floor:
    """The handler and what it needs."""

    def __init__(self, folder: Path, url: str, commits: Commits) -> None:
        self._url = url
        self._commits = commits
        self._schema = Schema.compile(SCHEMA, "floor")
        self._seal = Seal(read_key(folder / "keys/store.key"))
        self._private, self._public = (
            jwt.PyJWK(strictjson.loads((folder / "keys" / name).read_bytes())) for name in ("bus.jwk", "consumer.jwk")
        )
        self._head = {"kid": read_private((folder / "keys/bus.jwk").read_bytes()).kid, "typ": REPLY_TYPE}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Any path; the write has one commit more, in the place of ``begin``."""
        body, headers, now = await request.read(), request.headers, time.time()
        signed = Signed(headers["GSB-Signature"], self._verified(request, body))
        asked = self._fit(strictjson.loads(body))
        row = await self._accept(signed, body, now)
        if row.effect is Effect.ONCE:
            await self._commits.begin(row)
        answer = orjson.dumps(self._fit(asked))
        entry = await self._finish(row, answer)
        signature = self._sign(signed, row, entry, answer)
        return web.Response(body=answer, headers={"Content-Type": JSON_TYPE, "GSB-Signature": signature})

    def _verified(self, request: web.BaseRequest, body: bytes) -> dict[str, Any]:
        """The claims, once they are those of this request."""
        headers = request.headers
        claims: dict[str, Any] = jwt.decode(
            headers["GSB-Signature"],
            self._public,
            algorithms=["ES256"],
            audience=BUS,
            issuer=CONSUMER,
            leeway=10,
            options={"require": ["iss", "aud", "iat", "exp", "jti"]},
        )
        key = headers.get("Idempotency-Key")
        told = {
            "method": request.method,
            "target_uri": self._url + request.raw_path,
            "content_type": headers.get("Content-Type"),
            "idempotency_key": None if key is None else key.strip('"'),
        }
        if any(claims.get(name) != value for name, value in told.items()):
            raise ValueError("another request was signed")
        if not hmac.compare_digest(claims["content_digest"], content_digest(body)):
            raise ValueError("another body was signed")
        return claims

    def _fit(self, value: Any) -> Any:
        if self._schema.faults(value):
            raise ValueError("the body does not fit")
        return value

    async def _accept(self, signed: Signed, body: bytes, now: float) -> Row:
        id_, claims = new_id(now), signed.claims
        key = claims.get("idempotency_key")
        service, effect = (READ, Effect.NONE) if key is None else (WRITE, Effect.ONCE)
        jti = self._seal.hash(CONSUMER, claims["jti"], b"jti")
        reserved, fingerprint = None, b""
        if key is not None:
            reserved = self._seal.hash(CONSUMER, key, b"key")
            content = (claims["method"], claims["target_uri"], PURPOSE, None, None, claims["content_digest"])
            fingerprint = self._seal.mask(hashlib.sha256(orjson.dumps(content)).digest(), id_)
        row = Row(
            0, id_, CONSUMER, service, effect, PURPOSE, "all", fingerprint, now, None, None, None, reserved,
            State.ACCEPTED, now + 3_600, now + 2,
        )  # fmt: skip
        entry = make_entry("accepted", now, self._facts(row) | {"key": self._head["kid"]}, {"request": signed.token})
        parts = {RECORD: (body, id_.encode()), SECRET: (entry.secret, entry.leaf)}
        record, secret = self._seal.seal(parts)
        await self._commits.accept(row, jti, record, entry, secret)
        return row

    async def _finish(self, row: Row, answer: bytes) -> Entry:
        facts = self._facts(row) | {"state": "done", "effect": "done", "attempt": 1}
        entry = make_entry("outcome", time.time(), facts, {"reply": content_digest(answer)})
        reply, secret = self._seal.seal({REPLY: (answer, row.id.encode()), SECRET: (entry.secret, entry.leaf)})
        await self._commits.finish(row, reply, entry, secret)
        return entry

    def _facts(self, row: Row) -> dict[str, Any]:
        return {
            "exchange": row.id,
            "agency": CONSUMER,
            "service": row.service,
            "purpose": PURPOSE,
            "agreement": "all",
            "agreement_digest": DIGEST,
            "fields": FIELDS,
        }

    def _sign(self, signed: Signed, row: Row, entry: Entry, answer: bytes) -> str:
        claims = {
            "iss": BUS,
            "aud": CONSUMER,
            "iat": int(time.time()),
            "jti": secrets.token_urlsafe(16),
            "req_jti": signed.claims["jti"],
            "req_hash": request_hash(signed.token),
            "status": 200,
            "content_digest": content_digest(answer),
            "content_type": JSON_TYPE,
            "exchange": row.id,
            "state": "done",
            "effect": "done",
            "entry": to_base64url(entry.leaf),
        }
        return jwt.encode(claims, self._private, algorithm="ES256", headers=self._head)


async def serve(folder: Path, port: int) -> None:
    """Serve on the port until SIGTERM."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    commits = Commits(folder / "floor.db")
    working = asyncio.create_task(commits.work())
    floor = Floor(folder, f"http://127.0.0.1:{port}", commits)
    runner = web.ServerRunner(web.Server(floor.handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    # As ``gsb serve`` does it, so that the difference between the two is not how the collector of cycles is set.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)
    await told.wait()
    await runner.cleanup()
    working.cancel()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
