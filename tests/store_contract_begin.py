"""What every store must do from a call's first look at it until an exchange has begun. See ``tests.store_contract``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gsb.errors import Replayed
from gsb.model import Effect, State, new_id
from gsb.store.contract import Attempt, Query, Reservation, Ruling, Store, ended
from tests.support.stores import DONE, LEASE, Clock, Maker, accepted, begun, entry, ids, new, state_of, unknown


class BeginContract:
    """The first half of ``tests.store_contract.StoreContract``."""

    @pytest.fixture
    async def store(self, maker: Maker) -> AsyncIterator[Store]:
        store = await maker.open()
        yield store
        await maker.close()

    @pytest.fixture
    def clock(self, maker: Maker) -> Clock:
        return maker.clock

    # --- accept and look ----------------------------------------------------------------------------------

    async def test_an_accepted_exchange_is_there_with_all_it_was_given(self, store: Store, clock: Clock) -> None:
        made = await accepted(store)
        found = await store.exchange(made.id)
        assert found is not None
        assert (found.id, found.agency, found.service, found.effect) == (
            made.id,
            "payroll",
            "hrmis/employee/v1",
            Effect.ONCE,
        )
        assert (found.state, found.attempt, found.outcome, found.began_at) == (State.ACCEPTED, 0, None, None)
        assert (found.purpose, found.agreement) == ("payroll", "agreement-7")
        assert (found.accepted_at, found.expires_at) == (clock.now, clock.now + 300)
        assert [(one.content, one.leaf, one.secret) for one in found.entries] == [
            (made.entry.content, made.entry.leaf, b"")
        ]

    async def test_what_was_accepted_survives_a_crash(self, store: Store, maker: Maker) -> None:
        made = await accepted(store)
        store = await maker.crash(store)
        assert (await begun(store, made.id)).record == made.record
        with pytest.raises(Replayed):
            await store.look("payroll", made.jti, None)

    async def test_a_jti_is_taken_once_for_each_issuer(self, store: Store) -> None:
        first = await accepted(store)
        again = new(jti=first.jti)
        with pytest.raises(Replayed):
            await store.accept(again)
        assert await store.exchange(again.id) is None
        assert await store.look("payroll", "another-jti", again.key) is None
        assert await store.accept(new(jti=first.jti, agency="customs")) is None

    @pytest.mark.parametrize("verb", ["look", "spend", "note", "accept"])
    async def test_a_spent_jti_is_refused_by_every_verb_that_takes_one(self, store: Store, verb: str) -> None:
        await store.spend("payroll", "once-only", 140)
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "look": lambda: store.look("payroll", "once-only", None),
            "spend": lambda: store.spend("payroll", "once-only", 140),
            "note": lambda: store.note(entry(), issuer="payroll", jti="once-only", jti_lives=140),
            "accept": lambda: store.accept(new(jti="once-only")),
        }
        with pytest.raises(Replayed):
            await calls[verb]()
        assert await store.look("customs", "once-only", None) is None

    async def test_a_jti_is_remembered_for_its_life_and_not_for_ever(self, store: Store, clock: Clock) -> None:
        await store.spend("payroll", "once-only", 140)
        clock.pass_(139)
        with pytest.raises(Replayed):
            await store.spend("payroll", "once-only", 140)
        clock.pass_(10_000)
        assert await store.look("payroll", "once-only", None) is None
        await store.spend("payroll", "once-only", 140)

    async def test_a_jti_spent_in_a_note_survives_a_crash(self, store: Store, maker: Maker) -> None:
        await store.note(entry(), issuer="payroll", jti="noted", jti_lives=140)
        await store.spend("payroll", "spent", 140)
        store = await maker.crash(store)
        for jti in ("noted", "spent"):
            with pytest.raises(Replayed):
                await store.look("payroll", jti, None)

    async def test_a_key_belongs_to_its_first_exchange(self, store: Store) -> None:
        first = await accepted(store, fingerprint=b"1" * 32)
        again = new(key=first.key, fingerprint=b"2" * 32)
        belongs = Reservation(first.id, b"1" * 32)
        assert await store.look("payroll", again.jti, first.key) == belongs
        assert await store.accept(again) == belongs
        assert await store.exchange(again.id) is None
        with pytest.raises(Replayed):
            await store.look("payroll", again.jti, None)
        assert await store.accept(new(key=first.key, agency="customs")) is None

    async def test_looking_reserves_nothing(self, store: Store) -> None:
        made = new()
        assert await store.look("payroll", made.jti, made.key) is None
        assert await store.look("payroll", made.jti, made.key) is None
        assert await store.accept(made) is None

    async def test_exchanges_without_a_key_are_independent(self, store: Store) -> None:
        assert await store.accept(new(Effect.NONE, key=None)) is None
        assert await store.accept(new(Effect.NONE, key=None)) is None

    async def test_a_key_is_kept_30_days_after_the_outcome_and_then_free(self, store: Store, clock: Clock) -> None:
        first = await accepted(store, expires_in=100 * 86_400.0)
        clock.pass_(40 * 86_400)
        assert await store.look("payroll", "jti-1", first.key) is not None  # it has no outcome yet
        attempt = (await begun(store, first.id)).attempt
        assert await store.finish(attempt, DONE, entry())
        clock.pass_(29 * 86_400)
        assert await store.accept(new(key=first.key)) == Reservation(first.id, first.fingerprint)
        clock.pass_(2 * 86_400)
        assert await store.look("payroll", "jti-2", first.key) is None
        second = new(key=first.key)
        assert await store.accept(second) is None
        assert await store.accept(new(key=first.key)) == Reservation(second.id, second.fingerprint)

    async def test_many_accepts_of_one_key_make_one_exchange(self, store: Store) -> None:
        made = [new(key="same") for _ in range(100)]
        answers = await asyncio.gather(*(store.accept(one) for one in made))
        (first,) = [one for one, answer in zip(made, answers, strict=True) if answer is None]
        assert {answer.exchange for answer in answers if answer is not None} == {first.id}
        assert len(await ids(store, Query(limit=200))) == 1

    async def test_many_accepts_of_one_jti_make_one_exchange(self, store: Store) -> None:
        made = [new(jti="same") for _ in range(100)]
        answers = await asyncio.gather(*(store.accept(one) for one in made), return_exceptions=True)
        assert answers.count(None) == 1
        assert sum(isinstance(answer, Replayed) for answer in answers) == 99

    async def test_a_call_that_fails_does_not_fail_those_committed_with_it(self, store: Store) -> None:
        await store.spend("payroll", "spent", 140)
        made = [new(jti="spent") if number % 2 else new() for number in range(20)]
        answers = await asyncio.gather(*(store.accept(one) for one in made), return_exceptions=True)
        for one, answer in zip(made, answers, strict=True):
            assert isinstance(answer, Replayed) if one.jti == "spent" else answer is None
            assert (await store.exchange(one.id) is None) == (one.jti == "spent")

    # --- begin --------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("effect", Effect)
    async def test_begin_hands_out_the_record_once(self, store: Store, clock: Clock, effect: Effect) -> None:
        made = await accepted(store, effect)
        got = await begun(store, made.id)
        assert (got.attempt, got.task, got.maybe_sent) == (Attempt(made.id, 1), "run", False)
        assert got.record == made.record
        assert (got.exchange.state, got.exchange.attempt) == (State.RUNNING, 1)
        assert await store.begin(made.id, LEASE) is None
        clock.pass_(LEASE - 1)
        assert await store.begin(made.id, LEASE) is None

    @pytest.mark.parametrize("effect", Effect)
    async def test_of_many_begins_one_gets_it(self, store: Store, effect: Effect) -> None:
        made = await accepted(store, effect)
        got = await asyncio.gather(*(store.begin(made.id, LEASE) for _ in range(50)))
        assert sum(one is not None for one in got) == 1

    async def test_what_is_not_known_does_not_begin(self, store: Store) -> None:
        assert await store.begin(new_id(), LEASE) is None
        assert await store.begin("no such id", LEASE) is None

    @pytest.mark.parametrize("effect", Effect)
    async def test_a_running_exchange_is_shown_as_running(self, store: Store, clock: Clock, effect: Effect) -> None:
        made = await accepted(store, effect)
        clock.pass_(1)
        await begun(store, made.id)
        found = await store.exchange(made.id)
        assert found is not None
        assert (found.state, found.attempt, found.began_at) == (State.RUNNING, 1, clock.now)
        assert await ids(store, Query(states=frozenset({State.RUNNING}))) == [made.id]
        assert not await ids(store, Query(states=frozenset({State.ACCEPTED})))
        assert await ids(store, Query(states=frozenset({State.ACCEPTED, State.RUNNING}))) == [made.id]

    @pytest.mark.parametrize("effect", [Effect.REPEATABLE, Effect.ONCE])
    async def test_the_lease_of_a_write_survives_a_crash(self, store: Store, maker: Maker, effect: Effect) -> None:
        made = await accepted(store, effect)
        attempt = (await begun(store, made.id)).attempt
        store = await maker.crash(store)
        assert await store.begin(made.id, LEASE) is None
        assert await store.finish(attempt, DONE, entry())

    async def test_a_read_may_begin_again_after_a_crash(self, store: Store, maker: Maker, clock: Clock) -> None:
        made = await accepted(store, Effect.NONE)
        await begun(store, made.id)
        store = await maker.crash(store)
        clock.pass_(LEASE + 1)
        got = await begun(store, made.id)
        assert (got.task, got.maybe_sent) == ("run", False)

    async def test_a_lapsed_repeatable_begins_again_and_may_have_been_sent(self, store: Store, clock: Clock) -> None:
        made = await accepted(store, Effect.REPEATABLE)
        first = (await begun(store, made.id)).attempt
        clock.pass_(LEASE)
        got = await begun(store, made.id)
        assert (got.attempt.number, got.task, got.maybe_sent) == (2, "run", True)
        assert not await store.finish(first, DONE, entry())
        assert await store.postpone(got.attempt, 1, "down", sent=False)
        last = await begun(store, made.id)
        assert last.maybe_sent  # by the first attempt, of which nobody knows
        assert await store.finish(last.attempt, DONE, entry())

    async def test_a_lapsed_read_begins_again_and_was_never_sent(self, store: Store, clock: Clock) -> None:
        made = await accepted(store, Effect.NONE)
        first = (await begun(store, made.id)).attempt
        clock.pass_(LEASE)
        got = await begun(store, made.id)
        assert (got.attempt.number, got.task, got.maybe_sent) == (2, "run", False)
        assert not await store.finish(first, DONE, entry())
        assert await store.finish(got.attempt, DONE, entry())

    async def test_a_lapsed_once_never_begins_again(self, store: Store, clock: Clock) -> None:
        made = await accepted(store, Effect.ONCE)
        await begun(store, made.id)
        for seconds in (LEASE, 1_000):
            clock.pass_(seconds)
            assert await store.begin(made.id, LEASE) is None

    @pytest.mark.parametrize("effect", Effect)
    async def test_past_its_time_it_is_handed_out_to_be_ended(self, store: Store, clock: Clock, effect: Effect) -> None:
        made = await accepted(store, effect)
        clock.pass_(300)
        first, second = await begun(store, made.id), await begun(store, made.id)
        assert first.task == second.task == "expired"
        assert first.attempt == second.attempt == Attempt(made.id, 0)
        assert not first.maybe_sent
        assert await state_of(store, made.id) is State.ACCEPTED
        assert await store.finish(first.attempt, ended(State.EXPIRED, "none", 504, "exchange_expired"), entry())
        assert not await store.finish(second.attempt, DONE, entry())

    async def test_a_lapsed_repeatable_past_its_time_is_to_be_ended(self, store: Store, clock: Clock) -> None:
        made = await accepted(store, Effect.REPEATABLE)
        await begun(store, made.id)
        clock.pass_(300)
        got = await begun(store, made.id)
        assert (got.task, got.maybe_sent, got.attempt.number) == ("expired", True, 1)
        assert await state_of(store, made.id) is State.RUNNING

    async def test_a_waiting_one_past_its_time_is_to_be_ended(self, store: Store, clock: Clock) -> None:
        made = await accepted(store, Effect.ONCE)
        attempt = (await begun(store, made.id)).attempt
        assert await store.postpone(attempt, 10_000, "down", sent=False)
        clock.pass_(300)
        got = await begun(store, made.id)
        assert (got.task, got.maybe_sent) == ("expired", False)

    async def test_of_an_unknown_one_only_its_effect_may_be_looked_for(self, store: Store, clock: Clock) -> None:
        made, attempt = await unknown(store)
        for seconds in (0, 1_000):
            clock.pass_(seconds)
            got = await begun(store, made.id)
            assert (got.task, got.attempt, got.maybe_sent, got.record) == ("find", attempt, True, made.record)
        assert await state_of(store, made.id) is State.UNKNOWN

    # --- after a restore ------------------------------------------------------------------------------------

    async def test_writes_are_withheld_until_they_are_admitted(self, store: Store, maker: Maker) -> None:
        assert not await store.withheld()
        assert not await store.admit_writes(entry("writes_admitted"))
        for _ in range(2):
            await store.withhold(entry("restored"))
            store = await maker.crash(store)
            assert await store.withheld()
        assert await store.admit_writes(entry("writes_admitted"))
        store = await maker.crash(store)
        assert not await store.withheld()
        assert (await store.backlog()).entries == 3

    async def test_what_is_revoked_stays_revoked(self, store: Store, maker: Maker) -> None:
        assert await store.revoked() == frozenset()
        for kid in ("first", "second", "first"):
            await store.revoke(kid, entry("act"))
        assert await store.revoked() == {"first", "second"}
        store = await maker.crash(store)
        assert await store.revoked() == {"first", "second"}
        assert (await store.backlog()).entries == 3

    @pytest.mark.parametrize("effect", Effect)
    async def test_what_nobody_knows_the_fate_of_is_never_run_again(self, store: Store, effect: Effect) -> None:
        made = await accepted(store, effect)
        ruling = Ruling(frozenset({State.ACCEPTED}), State.UNKNOWN, reason="restored")
        assert await store.resolve(made.id, ruling, entry("unknown"))
        assert not await store.resolve(made.id, ruling, entry("unknown"))
        found = await store.exchange(made.id)
        assert found is not None
        assert (found.state, found.reason, len(found.entries)) == (State.UNKNOWN, "restored", 2)
        got = await begun(store, made.id)
        assert (got.task, got.maybe_sent) == ("find", effect is not Effect.NONE)
        assert await store.finish(got.attempt, DONE, entry("outcome"))
        assert await state_of(store, made.id) is State.DONE
