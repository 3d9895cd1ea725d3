"""What every store must forget, when, and what it must keep all the same. See ``tests.store_contract``."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gsb.model import Effect, State
from gsb.store.contract import DAY, Ages, Business, Query, Reservation, Store, ended
from tests.support.stores import AGES, DONE, LEASE, Clock, Maker, accepted, begun, done, entry, ids, new, unknown


class AgesContract:
    """A part of ``tests.store_contract.StoreContract``."""

    async def deleted(self, store: Store, maker: Maker) -> Store:
        """The store once it has deleted what has reached its age. Each store has its own way to get there."""
        raise NotImplementedError

    @pytest.mark.parametrize("wait", [False, True])
    async def test_bodies_go_at_their_age_and_the_rest_stays(
        self, store: Store, maker: Maker, clock: Clock, wait: bool
    ) -> None:
        """Deleted already or not: what is told changes at that moment."""
        made = await done(store)
        before = await store.exchange(made.id)
        clock.pass_(AGES.bodies - 1)
        store = await self.deleted(store, maker)
        assert await store.exchange(made.id) == before
        assert await store.record(made.id) == made.record
        clock.pass_(1)
        if wait:
            store = await self.deleted(store, maker)
        found = await store.exchange(made.id)
        assert before is not None
        assert found == before._replace(gone=True, outcome=replace(DONE, body=b""))
        assert await store.record(made.id) is None
        assert (await store.search(Query())).exchanges == (found._replace(entries=()),)

    async def test_bodies_that_are_gone_do_not_come_back_when_the_clock_does(
        self, store: Store, maker: Maker, clock: Clock
    ) -> None:
        made = await done(store)
        clock.pass_(AGES.bodies)
        store = await self.deleted(store, maker)
        clock.pass_(-AGES.bodies)
        found = await store.exchange(made.id)
        assert found is not None
        assert found.gone
        assert await store.record(made.id) is None

    async def test_a_key_outlives_the_bodies(self, store: Store, maker: Maker, clock: Clock) -> None:
        made = await done(store)
        clock.pass_(AGES.keys - 1)
        store = await self.deleted(store, maker)
        assert await store.look("payroll", "jti-1", made.key) == Reservation(made.id, made.fingerprint)
        assert await store.accept(new(key=made.key)) == Reservation(made.id, made.fingerprint)
        found = await store.exchange(made.id)
        assert found is not None
        assert (found.gone, found.state) == (True, State.DONE)

    @pytest.mark.parametrize("wait", [False, True])
    async def test_the_exchange_itself_goes_last(self, store: Store, maker: Maker, clock: Clock, wait: bool) -> None:
        made = await done(store, business=Business("E-1", personal=True))
        entries = await self.entries(maker)
        clock.pass_(AGES.exchanges - 1)
        store = await self.deleted(store, maker)
        assert await store.exchange(made.id) is not None
        assert await ids(store, Query(business="E-1")) == [made.id]
        clock.pass_(1)
        if wait:
            store = await self.deleted(store, maker)
        assert await store.exchange(made.id) is None
        assert await store.record(made.id) is None
        assert await ids(store) == []
        assert await ids(store, Query(business="E-1")) == []
        assert await store.begin(made.id, LEASE) is None
        assert await self.entries(maker) == entries

    async def entries(self, maker: Maker) -> int:
        raise NotImplementedError

    async def secrets(self, maker: Maker) -> int:
        raise NotImplementedError

    async def test_what_its_entries_commit_to_goes_with_the_exchange(
        self, store: Store, maker: Maker, clock: Clock
    ) -> None:
        made, held = await done(store), await accepted(store, expires_in=10**9)
        await store.note(entry("refused"))
        clock.pass_(AGES.exchanges - 1)
        store = await self.deleted(store, maker)
        assert None not in [one.secret for one in await store.evidence(made.id)]
        assert (await self.entries(maker), await self.secrets(maker)) == (4, 4)
        clock.pass_(1)
        store = await self.deleted(store, maker)
        assert not await store.evidence(made.id)
        assert [one.secret for one in await store.evidence(held.id)] == [held.entry.secret]
        assert (await self.entries(maker), await self.secrets(maker)) == (4, 2)

    async def test_nothing_goes_of_what_has_no_outcome(self, store: Store, maker: Maker, clock: Clock) -> None:
        waiting = await accepted(store, Effect.REPEATABLE)
        assert await store.postpone((await begun(store, waiting.id)).attempt, 10, "down", sent=False)
        held = await accepted(store, Effect.REPEATABLE)
        assert await store.hold((await begun(store, held.id)).attempt, State.HELD, "broken", entry())
        running, (lost, _), idle = await accepted(store), await unknown(store), await accepted(store, Effect.NONE)
        await begun(store, running.id)
        made = [waiting, held, running, lost, idle]
        before = [await store.exchange(one.id) for one in made]
        clock.pass_(10 * AGES.exchanges)
        store = await self.deleted(store, maker)
        assert [await store.exchange(one.id) for one in made] == before
        for one in made:
            assert await store.record(one.id) == one.record
            assert await store.look("payroll", "jti-1", one.key) == Reservation(one.id, one.fingerprint)
        assert (await begun(store, waiting.id)).record == waiting.record

    async def test_the_age_counts_from_the_outcome(self, store: Store, maker: Maker, clock: Clock) -> None:
        made, attempt = await unknown(store)
        clock.pass_(10 * AGES.exchanges)
        assert await store.finish(attempt, ended(State.FAILED, "none", 502, "closed_by_operator"), entry())
        clock.pass_(AGES.bodies - 1)
        store = await self.deleted(store, maker)
        found = await store.exchange(made.id)
        assert found is not None
        assert not found.gone

    async def test_what_comes_after_what_was_deleted_has_entries_of_its_own(
        self, store: Store, maker: Maker, clock: Clock
    ) -> None:
        await done(store)
        clock.pass_(AGES.exchanges)
        store = await self.deleted(store, maker)
        store = await maker.crash(store)
        made = await accepted(store)
        found = await store.exchange(made.id)
        assert found is not None
        assert [one.leaf for one in found.entries] == [made.entry.leaf]

    async def test_pages_go_on_when_the_exchange_before_them_is_gone(
        self, store: Store, maker: Maker, clock: Clock
    ) -> None:
        """Only the newest two have ended, so they are deleted first."""
        made = [await accepted(store, expires_in=10**9) for _ in range(4)]
        made += [await done(store), await done(store)]
        page = await store.search(Query(limit=2))
        assert [one.id for one in page.exchanges] == [made[5].id, made[4].id]
        clock.pass_(AGES.exchanges)
        store = await self.deleted(store, maker)
        assert await ids(store, Query(cursor=page.next)) == [one.id for one in made[3::-1]]


@pytest.mark.parametrize(("bodies", "keys"), [(90, 30), (30, 90), (91, 1)])
def test_an_exchange_is_kept_longer_than_what_belongs_to_it(bodies: int, keys: int) -> None:
    with pytest.raises(ValueError, match="longer"):
        Ages(bodies * DAY, keys * DAY, 90 * DAY)
