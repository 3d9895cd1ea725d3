"""What every store must do, whatever it is made of: one test for each sentence of ``gsb.store.contract``.

A subclass gives a maker of stores. Opening a second store on the same place after ``crash`` stands for a restart.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gsb.errors import Replayed
from gsb.model import Effect, State, new_id
from gsb.store.contract import Attempt, Business, Ruling, Store, ended
from tests.store_contract_ages import AgesContract
from tests.store_contract_clock import ClockContract
from tests.store_contract_erase import EraseContract
from tests.store_contract_log import LogContract
from tests.store_contract_search import SearchContract
from tests.support.stores import DONE, LEASE, Clock, Maker, accepted, begun, entry, state_of, unknown


class StoreContract(ClockContract, SearchContract, AgesContract, LogContract, EraseContract):
    """Inherit from this and give a fixture ``maker``."""

    # --- finish -------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("effect", Effect)
    async def test_an_outcome_is_kept_whole(self, store: Store, maker: Maker, clock: Clock, effect: Effect) -> None:
        made = await accepted(store, effect)
        got = await begun(store, made.id)
        outcome = replace(DONE, effect="none", agreement_digest="other", fields=("/a", "/b/*"))
        closing = entry("done")
        assert await store.finish(got.attempt, outcome, closing)
        for _ in range(2):
            found = await store.exchange(made.id)
            assert found is not None
            assert (found.state, found.outcome, found.due_at, found.attempt) == (State.DONE, outcome, None, 1)
            assert found.began_at == clock.now
            assert [one.leaf for one in found.entries] == [made.entry.leaf, closing.leaf]
            assert await store.begin(made.id, LEASE) is None
            store = await maker.crash(store)

    @pytest.mark.parametrize("final", [State.REFUSED, State.FAILED, State.EXPIRED])
    async def test_an_outcome_without_a_body(self, store: Store, final: State) -> None:
        made = await accepted(store)
        outcome = ended(final, "none", 502, "reply_invalid")
        assert await store.finish((await begun(store, made.id)).attempt, outcome, entry())
        found = await store.exchange(made.id)
        assert found is not None
        assert found.outcome == outcome

    @pytest.mark.parametrize("effect", Effect)
    async def test_a_final_exchange_never_changes_again(self, store: Store, effect: Effect) -> None:
        made = await accepted(store, effect)
        attempt = (await begun(store, made.id)).attempt
        assert await store.finish(attempt, DONE, entry())
        before = await store.exchange(made.id)
        assert not await store.finish(attempt, ended(State.FAILED, "none", 502), entry())
        assert not await store.postpone(attempt, 1, "late", sent=True)
        assert not await store.hold(attempt, State.UNKNOWN, "late", entry())
        ruling = Ruling(frozenset(State), State.FAILED, ended(State.FAILED, "none", 502))
        assert not await store.resolve(made.id, ruling, entry())
        assert await store.exchange(made.id) == before

    async def test_of_many_finishes_one_wins(self, store: Store) -> None:
        made = await accepted(store)
        attempt = (await begun(store, made.id)).attempt
        bodies = [str(number).encode() for number in range(30)]
        won = await asyncio.gather(*(store.finish(attempt, replace(DONE, body=one), entry()) for one in bodies))
        (body,) = [one for one, answer in zip(bodies, won, strict=True) if answer]
        found = await store.exchange(made.id)
        assert found is not None
        assert found.outcome is not None
        assert found.outcome.body == body
        assert len(found.entries) == 2

    async def test_a_finish_of_what_is_not_known_is_refused(self, store: Store) -> None:
        assert not await store.finish(Attempt(new_id(), 1), DONE, entry())

    @pytest.mark.parametrize("number", [0, 2])
    async def test_only_the_newest_attempt_counts(self, store: Store, number: int) -> None:
        made = await accepted(store)
        await begun(store, made.id)
        wrong = Attempt(made.id, number)
        assert not await store.finish(wrong, DONE, entry())
        assert not await store.postpone(wrong, 1, "down", sent=False)
        assert not await store.hold(wrong, State.UNKNOWN, "timed_out", entry())
        found = await store.exchange(made.id)
        assert found is not None
        assert (found.state, len(found.entries)) == (State.RUNNING, 1)

    async def test_a_late_finish_ends_an_unknown_exchange(self, store: Store) -> None:
        made, attempt = await unknown(store)
        assert await store.finish(attempt, DONE, entry())
        assert await state_of(store, made.id) is State.DONE

    # --- postpone and hold --------------------------------------------------------------------------------

    @pytest.mark.parametrize("effect", Effect)
    async def test_a_postponed_exchange_waits_and_is_due_then(self, store: Store, clock: Clock, effect: Effect) -> None:
        made = await accepted(store, effect)
        attempt = (await begun(store, made.id)).attempt
        assert await store.postpone(attempt, 60, "system_down", sent=False)
        found = await store.exchange(made.id)
        assert found is not None
        assert (found.state, found.reason, found.due_at) == (State.WAITING, "system_down", clock.now + 60)
        assert not await store.postpone(attempt, 60, "again", sent=False)
        clock.pass_(59)
        assert not await store.due(10)
        clock.pass_(1)
        assert [one.exchange for one in await store.due(10)] == [made.id]

    @pytest.mark.parametrize(
        ("effect", "sent", "maybe"),
        [
            (Effect.ONCE, False, False),
            (Effect.REPEATABLE, False, False),
            (Effect.REPEATABLE, True, True),
            (Effect.NONE, True, False),
        ],
    )
    async def test_whether_a_postponed_one_may_have_been_sent(
        self, store: Store, effect: Effect, sent: bool, maybe: bool
    ) -> None:
        made = await accepted(store, effect)
        assert await store.postpone((await begun(store, made.id)).attempt, 60, "down", sent=sent)
        got = await begun(store, made.id)
        assert (got.task, got.attempt.number, got.maybe_sent) == ("run", 2, maybe)
        assert await store.postpone(got.attempt, 60, "down", sent=False)
        assert (await begun(store, made.id)).maybe_sent is maybe

    async def test_a_postponed_one_is_due_when_it_expires_at_the_latest(self, store: Store, clock: Clock) -> None:
        made = await accepted(store)
        assert await store.postpone((await begun(store, made.id)).attempt, 10_000, "down", sent=False)
        clock.pass_(300)
        assert [one.exchange for one in await store.due(10)] == [made.id]

    async def test_a_held_exchange_rests_until_an_operator_acts(self, store: Store, clock: Clock) -> None:
        made = await accepted(store, Effect.REPEATABLE)
        attempt = (await begun(store, made.id)).attempt
        why = entry("held")
        assert await store.hold(attempt, State.HELD, "broken", why)
        found = await store.exchange(made.id)
        assert found is not None
        assert (found.state, found.reason, found.entries[-1].leaf) == (State.HELD, "broken", why.leaf)
        assert not await store.hold(attempt, State.UNKNOWN, "again", entry())
        assert not await store.postpone(attempt, 1, "again", sent=False)
        clock.pass_(10_000)
        assert await store.begin(made.id, LEASE) is None
        assert not await store.due(10)

    async def test_an_unknown_exchange_stays_due_by_growing_gaps(self, store: Store, clock: Clock) -> None:
        made, attempt = await unknown(store)
        assert not await store.hold(attempt, State.HELD, "again", entry())
        assert not await store.postpone(attempt, 1, "again", sent=False)
        assert await self.gaps(store, clock, made.id, 12) == [2, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]

    async def gaps(self, store: Store, clock: Clock, exchange: str, count: int) -> list[int]:
        """Seconds between the times at which the exchange is due, asked once a second."""
        found: list[int] = []
        waited = 0
        while len(found) < count and waited < 1_000:
            clock.pass_(1)
            waited += 1
            if any(one.exchange == exchange for one in await store.due(10)):
                found.append(waited)
                waited = 0
        return found

    # --- resolve ------------------------------------------------------------------------------------------

    async def test_an_operator_ends_an_unknown_exchange(self, store: Store) -> None:
        made, attempt = await unknown(store)
        outcome = ended(State.FAILED, "none", 502, "closed_by_operator")
        act = entry("resolved")
        assert await store.resolve(made.id, Ruling(frozenset({State.UNKNOWN}), State.FAILED, outcome), act)
        found = await store.exchange(made.id)
        assert found is not None
        assert (found.state, found.outcome, found.entries[-1].leaf) == (State.FAILED, outcome, act.leaf)
        assert not await store.finish(attempt, DONE, entry())

    async def test_an_operator_has_a_held_exchange_tried_again(self, store: Store, clock: Clock) -> None:
        made = await accepted(store, Effect.REPEATABLE)
        assert await store.hold((await begun(store, made.id)).attempt, State.HELD, "broken", entry())
        clock.pass_(1_000)
        assert await store.resolve(made.id, Ruling(frozenset({State.HELD}), State.ACCEPTED, None, 500), entry())
        found = await store.exchange(made.id)
        assert found is not None
        assert (found.state, found.expires_at, found.reason) == (State.ACCEPTED, clock.now + 500, None)
        got = await begun(store, made.id)
        assert (got.task, got.attempt.number, got.maybe_sent) == ("run", 2, True)

    async def test_a_ruling_on_another_state_changes_nothing(self, store: Store) -> None:
        made = await accepted(store, Effect.NONE)
        await begun(store, made.id)
        ruling = Ruling(frozenset({State.ACCEPTED, State.HELD}), State.FAILED, ended(State.FAILED, "none", 502))
        assert not await store.resolve(made.id, ruling, entry())
        assert not await store.resolve(new_id(), ruling, entry())
        found = await store.exchange(made.id)
        assert found is not None
        assert (found.state, len(found.entries)) == (State.RUNNING, 1)

    # --- due ----------------------------------------------------------------------------------------------

    async def test_an_accepted_exchange_is_due_by_growing_gaps(self, store: Store, clock: Clock) -> None:
        made = await accepted(store, expires_in=100_000.0)
        assert not await store.due(10)
        gaps = await self.gaps(store, clock, made.id, 11)
        assert gaps == [2, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]

    async def test_an_accepted_exchange_is_due_when_it_expires(self, store: Store, clock: Clock) -> None:
        made = await accepted(store, expires_in=5.0)
        assert await self.gaps(store, clock, made.id, 3) == [2, 2, 1]

    async def test_due_claims_at_most_so_many_and_each_once(self, store: Store, clock: Clock) -> None:
        made = {(await accepted(store, expires_in=1_000.0)).id for _ in range(10)}
        clock.pass_(60)
        claimed = await asyncio.gather(*(store.due(3) for _ in range(4)))
        assert [len(one) for one in claimed] == [3, 3, 3, 1]
        assert {due.exchange for one in claimed for due in one} == made
        assert {(due.system, due.lapsed) for one in claimed for due in one} == {("hrmis", None)}

    @pytest.mark.parametrize("effect", Effect)
    async def test_a_running_exchange_is_due_when_its_lease_runs_out(
        self, store: Store, clock: Clock, effect: Effect
    ) -> None:
        made = await accepted(store, effect)
        attempt = (await begun(store, made.id)).attempt
        clock.pass_(LEASE - 1)
        assert not await store.due(10)
        clock.pass_(1)
        (due,) = await store.due(10)
        assert (due.exchange, due.lapsed) == (made.id, attempt if effect is Effect.ONCE else None)

    async def test_a_lapsed_once_becomes_unknown_and_may_still_finish(self, store: Store, clock: Clock) -> None:
        made = await accepted(store, Effect.ONCE)
        attempt = (await begun(store, made.id)).attempt
        clock.pass_(LEASE)
        (due,) = await store.due(10)
        assert due.lapsed is not None
        assert await store.hold(due.lapsed, State.UNKNOWN, "lease_lapsed", entry())
        assert (await begun(store, made.id)).task == "find"
        assert await store.finish(attempt, DONE, entry())

    async def test_a_final_exchange_is_not_due(self, store: Store, clock: Clock) -> None:
        made = await accepted(store)
        assert await store.finish((await begun(store, made.id)).attempt, DONE, entry())
        clock.pass_(100_000)
        assert not await store.due(10)

    # --- what stands still ---------------------------------------------------------------------------------

    async def test_what_stands_still_is_counted(self, store: Store, maker: Maker, clock: Clock) -> None:
        assert sum((await store.standing()).values()) == 0
        await accepted(store)
        await begun(store, (await accepted(store)).id)
        for outcome in (DONE, ended(State.FAILED, "none", 502)):
            assert await store.finish((await begun(store, (await accepted(store)).id)).attempt, outcome, entry())
        for _ in range(3):
            await unknown(store)
        for _ in range(2):
            attempt = (await begun(store, (await accepted(store)).id)).attempt
            assert await store.postpone(attempt, 60, "down", sent=False)
        held = (await begun(store, (await accepted(store)).id)).attempt
        assert await store.hold(held, State.HELD, "system_broken", entry())
        for _ in range(2):
            assert dict(await store.standing()) == {State.UNKNOWN: 3, State.WAITING: 2, State.HELD: 1}
            store = await maker.crash(store)
        assert await store.resolve(held.exchange, Ruling(frozenset({State.HELD}), State.DONE, DONE), entry())
        assert (await store.standing()).get(State.HELD, 0) == 0

    # --- notes --------------------------------------------------------------------------------------------

    async def test_a_replayed_note_writes_no_entry(self, store: Store, maker: Maker) -> None:
        await store.note(entry(), issuer="payroll", jti="noted", jti_lives=140)
        await store.note(entry())
        with pytest.raises(Replayed):
            await store.note(entry(), issuer="payroll", jti="noted", jti_lives=140)
        assert await self.entries(maker) == 2

    async def entries(self, maker: Maker) -> int:
        """How many entries there are; each store has its own way to tell."""
        raise NotImplementedError

    async def test_entries_are_in_the_order_of_their_exchange(self, store: Store) -> None:
        made = await accepted(store, Effect.REPEATABLE)
        second, third, fourth = entry("held"), entry("replayed"), entry("done")
        assert await store.hold((await begun(store, made.id)).attempt, State.HELD, "broken", second)
        assert await store.resolve(made.id, Ruling(frozenset({State.HELD}), State.ACCEPTED, None, 500), third)
        assert await store.finish((await begun(store, made.id)).attempt, DONE, fourth)
        found = await store.exchange(made.id)
        assert found is not None
        assert [one.leaf for one in found.entries] == [made.entry.leaf, second.leaf, third.leaf, fourth.leaf]

    # --- what lies on the disk ----------------------------------------------------------------------------

    async def test_no_personal_value_lies_in_the_clear(self, store: Store, maker: Maker) -> None:
        made = await accepted(
            store,
            jti="canary-jti-0123456789",
            key="canary-key-0123456789",
            fingerprint=b"canary-f" * 4,
            business=Business("canary-employee", personal=True),
            subject="canary-person",
        )
        outcome = replace(DONE, body=b'{"name":"canary-reply"}')
        assert await store.finish((await begun(store, made.id)).attempt, outcome, entry())
        await store.note(entry(), issuer="payroll", jti="canary-jti-of-note", jti_lives=140)
        await store.spend("payroll", "canary-jti-of-spend", 140)
        found = await self.everything(maker)
        assert made.id.encode() in found
        assert b"canary" not in found

    async def everything(self, maker: Maker) -> bytes:
        """Every byte that the store has written."""
        raise NotImplementedError
