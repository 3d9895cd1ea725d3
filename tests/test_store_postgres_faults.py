"""What the PostgreSQL store does when the server goes away, dies, does not answer, or would forget what it was told."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import asyncpg
import pytest

from gsb.errors import StoreUnavailable
from gsb.model import State
from gsb.store.contract import Store, StoreUnfit
from gsb.store.postgres import PostgresStore
from tests.support.postgres import Server, own_server
from tests.support.stores import DONE, LEASE, PostgresMaker, accepted, begun, entry, ids, new, state_of

KEY = bytes(range(32))
NODES = 3
WITHIN = 60.0
"""Seconds for whatever must happen, on a machine that is busy with other things."""


@pytest.fixture
async def own() -> AsyncIterator[tuple[Server, PostgresMaker]]:
    """A server that a test may stop and change."""
    with own_server() as server:
        made = PostgresMaker(server.dsn, KEY)
        yield server, made
        await made.close()


async def test_a_restart_between_calls_costs_nobody_anything(own: tuple[Server, PostgresMaker]) -> None:
    server, maker = own
    store = await maker.open()
    made = await accepted(store)
    server.stop()
    server.start()
    assert await state_of(store, made.id) is State.ACCEPTED
    server.stop()
    server.start()
    assert await store.finish((await begun(store, made.id)).attempt, DONE, entry())


async def test_without_a_server_calls_are_refused_and_service_resumes(own: tuple[Server, PostgresMaker]) -> None:
    server, maker = own
    store = await maker.open()
    made = await accepted(store)
    server.stop()
    refused = new()
    for call in (store.accept(refused), store.exchange(made.id), store.begin(made.id, LEASE), store.backlog()):
        with pytest.raises(StoreUnavailable):
            await call
    server.start()
    assert await store.accept(refused) is None
    assert await ids(store) == [refused.id, made.id]


async def test_what_was_acknowledged_survives_a_crash_of_the_server_under_load(
    own: tuple[Server, PostgresMaker],
) -> None:
    server, maker = own
    nodes = [await maker.open() for _ in range(NODES)]
    for _ in range(3):
        kept = await _accept_until_it_fails(nodes, server)
        assert kept
        server.start()
        for one in kept:
            found = await nodes[0].exchange(one)
            assert found is not None
            assert len(found.entries) == 1


async def _accept_until_it_fails(nodes: list[PostgresStore], server: Server) -> list[str]:
    """What was acknowledged before the server was killed in the middle of it."""
    kept: list[str] = []

    async def accept(node: Store) -> None:
        while True:
            one = new()
            try:
                await node.accept(one)
            except StoreUnavailable:
                return
            kept.append(one.id)
            if len(kept) == 100:
                server.stop(signal.SIGQUIT)

    await asyncio.gather(*(accept(node) for node in nodes for _ in range(4)))
    return kept


async def test_of_a_commit_that_is_not_answered_nothing_is_said(own: tuple[Server, PostgresMaker]) -> None:
    """The server waits for a replica that it does not have, and is told to give up: it has committed all the same."""
    _, maker = own
    store = await maker.open()
    for _ in range(2):  # the second waits for what the store tidies after the first, which would wait for a replica too
        await accepted(store)
    await maker.rows("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    await maker.rows("SELECT pg_reload_conf()")
    await _given_up(maker, asyncio.create_task(_waits_for_replicas(maker)))
    made = new()
    call = asyncio.create_task(store.accept(made))
    await _given_up(maker, call)
    with pytest.raises(StoreUnavailable):
        await call
    await maker.rows("ALTER SYSTEM RESET synchronous_standby_names")
    await maker.rows("SELECT pg_reload_conf()")
    assert await state_of(store, made.id) is State.ACCEPTED
    again = await store.accept(made._replace(jti="another"))
    assert again is not None
    assert again.exchange == made.id


async def _waits_for_replicas(maker: PostgresMaker) -> None:
    """Commit again and again: the server takes up what it was told in a moment of its own, and then one waits."""
    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        while True:
            await maker.rows("SELECT pg_logical_emit_message(true, 'test', '')")


async def _given_up(maker: PostgresMaker, call: asyncio.Task[Any]) -> None:
    """Have the server give up the commit of this call, which waits for a replica."""
    pid = await _found(maker, "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    await maker.rows("SELECT pg_terminate_backend($1)", pid)
    await asyncio.wait([call])


async def _found(maker: PostgresMaker, sql: str) -> object:
    """What the statement finds, as soon as it finds something."""
    async with asyncio.timeout(WITHIN):
        while True:
            if found := await maker.rows(sql):
                return found[0][0]
            await asyncio.sleep(0.01)


async def test_commits_are_durable_whatever_the_role_is_set_to(own: tuple[Server, PostgresMaker]) -> None:
    _, maker = own
    await maker.rows("ALTER ROLE bus SET synchronous_commit = off")
    store = await maker.open()
    db = await store._sessions.connect()
    assert await db.fetchval("SHOW synchronous_commit") == "on"
    await db.close()


async def test_a_server_that_forgets_is_refused(own: tuple[Server, PostgresMaker]) -> None:
    _, maker = own
    await maker.rows("ALTER SYSTEM SET fsync = off")
    await maker.rows("SELECT pg_reload_conf()")
    await _found(maker, "SELECT 1 WHERE current_setting('fsync') = 'off'")
    with pytest.raises(StoreUnfit, match="fsync = off"):
        await maker.open()
