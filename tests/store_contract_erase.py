"""What every store must erase when it is told to, and what it must keep. See ``tests.store_contract``."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gsb.model import State, new_id
from gsb.store.contract import Attempt, Business, NewExchange, Query, Reservation, Store, ended
from gsb.store.logs import Erased
from tests.store_contract_log import opened, placed
from tests.support.stores import AGES, DONE, Clock, Maker, accepted, begun, done, entry, ids

PERSON = "canary-person"


async def of_person(store: Store) -> NewExchange:
    return await done(store, business=Business("canary-employee", personal=True), subject=PERSON)


class EraseContract:
    """A part of ``tests.store_contract.StoreContract``."""

    async def deleted(self, store: Store, maker: Maker) -> Store:
        """The store once it has deleted what has reached its age. Each store has its own way to get there."""
        raise NotImplementedError

    async def test_what_is_erased_is_gone_and_the_rest_stays(self, store: Store, maker: Maker) -> None:
        made, other = await of_person(store), await of_person(store)
        before, others = await store.exchange(made.id), await store.exchange(other.id)
        assert before is not None
        erasing = entry("erased", exchange=made.id)
        assert await store.erase({made.id: erasing}) == Erased((made.id,), (), ())
        for _ in range(2):
            added = replace(erasing, secret=b"")
            expected = before._replace(gone=True, outcome=replace(DONE, body=b""), entries=(*before.entries, added))
            assert await store.exchange(made.id) == expected
            assert await store.record(made.id) is None
            assert [one.secret for one in await store.evidence(made.id)] == [None, None, erasing.secret]
            for query in (Query(subject=PERSON), Query(business="canary-employee")):
                assert await ids(store, query) == [other.id]
            assert (await store.search(Query())).exchanges[-1] == expected._replace(entries=())
            assert await store.exchange(other.id) == others
            assert await store.record(other.id) == other.record
            assert None not in [one.secret for one in await store.evidence(other.id)]
            store = await maker.crash(store)

    async def test_only_what_is_final_is_erased(self, store: Store) -> None:
        final = [await of_person(store) for _ in range(2)]
        running, fresh = await accepted(store, subject=PERSON), await accepted(store, subject=PERSON)
        await begun(store, running.id)
        nobody = new_id()
        every = [final[0].id, running.id, nobody, final[1].id, fresh.id]
        asked = {exchange: entry("erased", exchange=exchange) for exchange in every}
        answer = await store.erase(asked)
        assert answer == Erased((final[0].id, final[1].id), (running.id, fresh.id), (nobody,))
        for one in (running, fresh):
            found = await store.exchange(one.id)
            assert found is not None
            assert (found.gone, len(found.entries)) == (False, 1)
            assert [each.secret for each in await store.evidence(one.id)] == [one.entry.secret]
        assert await ids(store, Query(subject=PERSON)) == [fresh.id, running.id]
        await opened(store)
        written = {content for _, content in await placed(store)}
        assert [asked[exchange].content in written for exchange in every] == [True, False, False, True, False]

    @pytest.mark.parametrize("state", [State.REFUSED, State.FAILED, State.EXPIRED])
    async def test_one_without_a_body_is_erased_too(self, store: Store, state: State) -> None:
        made = await accepted(store, subject=PERSON)
        outcome = ended(state, "none", 502, "reply_invalid")
        assert await store.finish((await begun(store, made.id)).attempt, outcome, entry())
        assert (await store.erase({made.id: entry()})).erased == (made.id,)
        found = await store.exchange(made.id)
        assert found is not None
        assert (found.state, found.outcome, found.gone) == (state, outcome, True)
        assert await store.record(made.id) is None

    async def test_a_repeat_of_what_was_erased_never_acts_again(self, store: Store, clock: Clock) -> None:
        made = await of_person(store)
        await store.erase({made.id: entry()})
        assert await store.look(made.agency, "another", made.key) == Reservation(made.id, made.fingerprint)
        again = made._replace(id=new_id(), jti="yet-another")
        assert await store.accept(again) == Reservation(made.id, made.fingerprint)
        assert await store.begin(made.id, 30) is None
        assert not await store.finish(Attempt(made.id, 1), DONE, entry())
        clock.pass_(1_000)
        assert not await store.due(10)

    async def test_erasing_again_adds_nothing_and_leaves_the_proof_of_the_first_time(self, store: Store) -> None:
        made = await of_person(store)
        acts = [entry("erased", by=f"{number}") for number in range(6)]
        answers = await asyncio.gather(*(store.erase({made.id: act}) for act in acts))
        assert answers == [Erased((made.id,), (), ())] * 6
        (first,) = [one for one in await store.evidence(made.id) if one.secret is not None]
        assert first in [(act.leaf, act.secret) for act in acts]
        assert (await store.erase({made.id: entry("erased", by="again")})).erased == (made.id,)
        assert [one for one in await store.evidence(made.id) if one.secret is not None] == [first]
        assert len(await store.entered(made.id)) == 3

    async def test_an_erasure_in_the_moment_of_the_outcome_takes_all_or_nothing(self, store: Store) -> None:
        made = [await accepted(store, subject=PERSON) for _ in range(10)]
        attempts = [(await begun(store, one.id)).attempt for one in made]
        asked = [store.erase({one.id: entry("erased")}) for one in made]
        ends = [store.finish(attempt, DONE, entry("outcome")) for attempt in attempts]
        answers = await asyncio.gather(*ends[:5], *asked, *ends[5:])
        for one, answer in zip(made, answers[5:15], strict=True):
            found, secrets = await store.exchange(one.id), [each.secret for each in await store.evidence(one.id)]
            assert isinstance(answer, Erased)
            assert found is not None
            assert (found.state, found.gone) == (State.DONE, bool(answer.erased))
            assert [secret is None for secret in secrets] == ([True, True, False] if found.gone else [False, False])

    async def test_evidence_that_has_outlived_the_bodies_is_erased(
        self, store: Store, maker: Maker, clock: Clock
    ) -> None:
        made = await of_person(store)
        clock.pass_(AGES.bodies)
        store = await self.deleted(store, maker)
        assert None not in [one.secret for one in await store.evidence(made.id)]
        assert (await store.erase({made.id: entry()})).erased == (made.id,)
        assert [one.secret is None for one in await store.evidence(made.id)] == [True, True, False]
        assert not await ids(store, Query(subject=PERSON))

    async def test_what_was_erased_goes_at_its_age_like_the_others(
        self, store: Store, maker: Maker, clock: Clock
    ) -> None:
        made = await of_person(store)
        await store.erase({made.id: entry()})
        clock.pass_(AGES.keys)
        store = await self.deleted(store, maker)
        clock.pass_(AGES.exchanges)
        store = await self.deleted(store, maker)
        assert await store.exchange(made.id) is None
        assert await store.erase({made.id: entry()}) == Erased((), (), (made.id,))

    async def test_erasing_changes_no_log(self, store: Store) -> None:
        await opened(store)
        made = await of_person(store)
        before = [content for _, content in await placed(store)]
        erasing = entry("erased")
        await store.erase({made.id: erasing})
        assert list(await store.entries((await store.logs())[0].origin, 0, 100)) == before
        assert [content for _, content in await placed(store)] == [erasing.content]
        assert [one.index for one in await store.entered(made.id)] == [1, 2, 3]
