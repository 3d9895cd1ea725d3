"""What every store must do while its clock is set ahead and back by hours. See ``tests.store_contract``."""

from __future__ import annotations

import pytest

from gsb.errors import Replayed, StoreUnavailable
from gsb.model import Effect, State
from gsb.store.contract import Reservation, Store
from tests.store_contract_begin import BeginContract
from tests.support.stores import DONE, LEASE, Clock, Maker, accepted, begun, entry, new, state_of, unknown

HOURS = 7_200.0
LIFE = 80.0


class ClockContract(BeginContract):
    """A part of ``tests.store_contract.StoreContract``."""

    # --- jtis ---------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("step", [HOURS, -HOURS])
    async def test_a_spent_jti_is_spent_whatever_the_clock_does(self, store: Store, clock: Clock, step: float) -> None:
        made = await accepted(store, jti_lives=LIFE)
        for by in (step, -step):
            clock.now += by
            clock.pass_(LIFE / 4)
            await store.spend("audit", f"other {by}", LIFE)  # whatever is forgotten, is forgotten at a commit
            with pytest.raises(Replayed):
                await store.spend("payroll", made.jti, LIFE)
        with pytest.raises(Replayed):
            await store.accept(new(jti=made.jti))

    async def test_a_jti_stays_spent_though_the_clock_was_ahead_when_the_store_was_opened(
        self, store: Store, maker: Maker, clock: Clock
    ) -> None:
        await store.spend("payroll", "before", LIFE)
        clock.now += HOURS
        store = await maker.crash(store)
        await store.spend("payroll", "other", LIFE)
        clock.now -= HOURS
        with pytest.raises(Replayed):
            await store.spend("payroll", "before", LIFE)

    async def test_what_cannot_be_told_from_a_replay_is_refused_until_the_clock_has_passed_it(
        self, store: Store, clock: Clock
    ) -> None:
        for number in range(3):
            await store.spend("payroll", str(number), LIFE)
            clock.pass_(LIFE)
        clock.pass_(HOURS)
        await store.spend("payroll", "forgets", LIFE)
        clock.pass_(1)
        await store.spend("payroll", "forgets too", LIFE)
        clock.now -= HOURS + 3 * LIFE + 1
        for number in range(3):
            with pytest.raises(StoreUnavailable, match=r"clock was set back.* Repeat later"):
                await store.spend("payroll", str(number), LIFE)
            clock.pass_(LIFE)
        clock.pass_(LIFE)
        await store.spend("payroll", "new", LIFE)

    async def test_a_clock_that_was_ahead_for_long_costs_nobody_anything_when_it_is_right_again(
        self, store: Store, clock: Clock
    ) -> None:
        await store.spend("payroll", "before", LIFE)
        clock.now += HOURS
        clock.pass_(HOURS / 2)
        await store.spend("payroll", "ahead", LIFE)
        clock.now -= HOURS
        await store.spend("payroll", "after", LIFE)

    # --- due times and leases -----------------------------------------------------------------------------

    async def test_what_was_accepted_or_postponed_before_the_clock_was_set_back_is_due_at_the_next_look(
        self, store: Store, clock: Clock
    ) -> None:
        made = await accepted(store)
        waiting = await accepted(store)
        assert await store.postpone((await begun(store, waiting.id)).attempt, 60, "down", sent=False)
        unsure, _ = await unknown(store)
        clock.now -= HOURS
        found = [*await store.due(10), *await store.due(10)]
        assert {due.exchange for due in found} == {made.id, waiting.id, unsure.id}
        assert (await begun(store, made.id)).task == "run"
        assert (await begun(store, waiting.id)).task == "run"
        assert (await begun(store, unsure.id)).task == "find"

    @pytest.mark.parametrize("effect", Effect)
    async def test_a_lease_from_before_the_clock_was_set_back_runs_out_within_minutes(
        self, store: Store, clock: Clock, effect: Effect
    ) -> None:
        made = await accepted(store, effect, expires_in=10_000)
        await begun(store, made.id)
        clock.now -= HOURS
        assert await store.due(10) == []
        assert await store.begin(made.id, LEASE) is None
        clock.pass_(LEASE)
        assert await store.due(10) == []
        clock.pass_(400)
        (due,) = await store.due(10)
        assert (due.lapsed is not None) == (effect is Effect.ONCE)
        if effect is not Effect.ONCE:
            assert (await begun(store, made.id)).attempt.number == 2

    @pytest.mark.parametrize("step", [HOURS, -HOURS])
    @pytest.mark.parametrize("effect", Effect)
    async def test_who_has_begun_finishes_whatever_the_clock_does(
        self, store: Store, clock: Clock, effect: Effect, step: float
    ) -> None:
        made = await accepted(store, effect)
        attempt = (await begun(store, made.id)).attempt
        clock.now += step
        await store.due(10)
        assert await store.finish(attempt, DONE, entry())
        clock.now -= step
        assert await store.due(10) == []
        assert await state_of(store, made.id) == State.DONE

    async def test_a_write_whose_lease_the_clock_has_passed_is_never_run_again_and_ends_late(
        self, store: Store, clock: Clock
    ) -> None:
        made = await accepted(store)
        attempt = (await begun(store, made.id)).attempt
        clock.now += HOURS
        (due,) = await store.due(10)
        assert due.lapsed == attempt
        assert await store.hold(attempt, State.UNKNOWN, "lease_expired", entry())
        assert (await begun(store, made.id)).task == "find"
        clock.now -= HOURS
        assert (await begun(store, made.id)).task == "find"
        assert await store.finish(attempt, DONE, entry())

    @pytest.mark.parametrize("step", [HOURS, -HOURS])
    async def test_a_key_keeps_its_exchange_whatever_the_clock_does(
        self, store: Store, clock: Clock, step: float
    ) -> None:
        made = await accepted(store)
        assert await store.finish((await begun(store, made.id)).attempt, DONE, entry())
        for by in (step, -step):
            clock.now += by
            assert await store.accept(new(key=made.key)) == Reservation(made.id, made.fingerprint)
