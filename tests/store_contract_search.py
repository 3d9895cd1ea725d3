"""What every store must find, and in which order. See ``tests.store_contract``."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations
from typing import Any

import pytest

from gsb.model import Effect, State
from gsb.store.contract import Business, CursorUnfit, NewExchange, Query, Store, ended
from tests.support.stores import DONE, Clock, Maker, accepted, begun, done, entry, ids, new

REFUSED = ended(State.REFUSED, "none", 422, "system_refused")
FAILED = ended(State.FAILED, "none", 502, "reply_invalid")
PEOPLE, TAX = "hrmis/employee/v1", "tax/income-tax/v1"


class SearchContract:
    """A part of ``tests.store_contract.StoreContract``."""

    async def test_search_is_newest_first_and_by_pages(self, store: Store, clock: Clock) -> None:
        made = []
        for _ in range(7):
            made.append((await accepted(store)).id)
            clock.pass_(1)
        newest = made[::-1]
        assert await ids(store) == newest
        pages, cursor = [], None
        for _ in range(3):
            page = await store.search(Query(limit=3, cursor=cursor))
            pages.append([one.id for one in page.exchanges])
            cursor = page.next
        assert pages == [newest[:3], newest[3:6], newest[6:]]
        assert cursor is None

    async def test_a_full_page_that_is_the_last_has_no_next(self, store: Store) -> None:
        for _ in range(4):
            await accepted(store)
        page = await store.search(Query(limit=2))
        assert page.next is not None
        assert (await store.search(Query(limit=2, cursor=page.next))).next is None

    async def test_pages_are_stable_while_exchanges_come_and_move(self, store: Store, clock: Clock) -> None:
        """Many of one moment, as a commit of many calls makes them."""
        made = [(await accepted(store)).id for _ in range(9)]
        clock.pass_(1)
        query = Query(limit=2, agency="payroll", service=PEOPLE)
        seen: list[str] = []
        while query.cursor is not None or not seen:
            page = await store.search(query)
            seen += [one.id for one in page.exchanges]
            query = replace(query, cursor=page.next)
            await accepted(store)
            await begun(store, seen[-1])
            await store.hold((await begun(store, (await accepted(store)).id)).attempt, State.HELD, "broken", entry())
        assert seen == made[::-1]

    @pytest.mark.parametrize("spoil", ["", "x", "A" * 32, "flip", "cut", "+", "\n"])
    async def test_a_cursor_that_the_store_has_not_made_is_refused(self, store: Store, spoil: str) -> None:
        for _ in range(2):
            await accepted(store)
        cursor = (await store.search(Query(limit=1))).next
        assert cursor is not None
        first = "B" if cursor[0] == "A" else "A"
        spoilt = {"flip": first + cursor[1:], "cut": cursor[:-1], "+": cursor + "+", "\n": cursor + "\n"}
        with pytest.raises(CursorUnfit):
            await store.search(Query(cursor=spoilt.get(spoil, spoil)))

    async def test_a_cursor_outlives_a_restart(self, store: Store, maker: Maker) -> None:
        made = [(await accepted(store)).id for _ in range(3)]
        cursor = (await store.search(Query(limit=2))).next
        store = await maker.crash(store)
        assert await ids(store, Query(cursor=cursor)) == made[:1]

    async def test_every_combination_of_fields_narrows_a_search(self, store: Store, clock: Clock) -> None:
        """Every subset of all fields, against the same filter in plain words."""
        made = await self._mixture(store, clock)
        fields: dict[str, list[Any]] = {
            "agency": ["payroll"],
            "service": [TAX],
            "states": [frozenset({state}) for state in State]
            + [frozenset({State.HELD, State.ACCEPTED}), frozenset({State.RUNNING, State.REFUSED}), frozenset(State)],
            "code": ["system_refused"],
            "business": ["E-1"],
            "subject": ["S-1"],
            "since": [made[0][1] + 20],
            "until": [made[0][1] + 60],
        }
        subsets = chain.from_iterable(combinations(fields, count) for count in range(len(fields) + 1))
        for names in subsets:
            for states in fields["states"] if "states" in names else [frozenset()]:
                given = {name: fields[name][0] for name in names} | ({"states": states} if states else {})
                query = Query(**given, limit=200)
                expected = [one.id for one, at, state, code in reversed(made) if _fits(query, one, at, state, code)]
                assert await ids(store, query) == expected, query

    async def _mixture(self, store: Store, clock: Clock) -> list[tuple[NewExchange, float, State, str | None]]:
        made: list[tuple[NewExchange, float, State, str | None]] = []
        business: list[Business | None] = [None, Business("E-1", personal=True), Business("E-1", personal=False)]
        kinds = [(agency, service) for agency in ("payroll", "customs") for service in (PEOPLE, TAX)]
        for number, (agency, service) in enumerate(kinds * 3):
            for state in State:
                effect = Effect.NONE if state is State.RUNNING and number % 2 else Effect.REPEATABLE
                one = new(effect, agency=agency, service=service, business=business[number % 3], expires_in=10**6)
                one = one._replace(subject=[None, "S-1", "S-2"][number % 5 % 3])
                assert await store.accept(one) is None
                made.append((one, clock.now, state, await _bring(store, one.id, state)))
                clock.pass_(1)
        return made

    async def test_personal_business_keys_are_found_in_their_service_or_in_any(self, store: Store) -> None:
        secret = Business("canary-employee", personal=True)
        first = await accepted(store, business=secret)
        second = await accepted(store, business=secret, service=TAX)
        assert await ids(store, Query(business=secret.value)) == [second.id, first.id]
        assert await ids(store, Query(business=secret.value, service=TAX)) == [second.id]
        assert not await ids(store, Query(business=secret.value, service="hrmis/other/v1"))
        assert not await ids(store, Query(business="canary"))

    async def test_whom_requests_are_about_is_found_in_every_service(self, store: Store) -> None:
        first = await accepted(store, subject="canary-person")
        second = await accepted(store, subject="canary-person", service=TAX, agency="customs")
        await accepted(store, subject="canary-other")
        assert await ids(store, Query(subject="canary-person")) == [second.id, first.id]
        assert await ids(store, Query(subject="canary-person", service=TAX)) == [second.id]
        assert not await ids(store, Query(subject="canary"))
        assert not await ids(store, Query(business="canary-person"))

    async def test_a_business_key_of_any_length_is_found(self, store: Store) -> None:
        made = await accepted(store, business=Business("x" * 100_000, personal=False))
        assert await ids(store, Query(business="x" * 100_000)) == [made.id]

    async def test_a_search_shows_outcomes_without_bodies(self, store: Store) -> None:
        await done(store)
        (found,) = (await store.search(Query())).exchanges
        assert found.outcome == replace(DONE, body=b"")
        assert (found.entries, found.gone) == ((), False)


def _fits(query: Query, one: NewExchange, at: float, state: State, code: str | None) -> bool:
    return (
        query.agency in (None, one.agency)
        and query.service in (None, one.service)
        and (not query.states or state in query.states)
        and query.code in (None, code)
        and (query.business is None or (one.business is not None and one.business.value == query.business))
        and query.subject in (None, one.subject)
        and (query.since or 0) <= at <= (query.until or float("inf"))
    )


async def _bring(store: Store, exchange: str, state: State) -> str | None:
    """Into this state; the code that it then has."""
    if state is State.ACCEPTED:
        return None
    attempt = (await begun(store, exchange, 10**6)).attempt
    outcomes = {State.DONE: DONE, State.REFUSED: REFUSED, State.FAILED: FAILED}
    outcomes[State.EXPIRED] = ended(State.EXPIRED, "none", 504, "exchange_expired")
    if state is State.WAITING:
        assert await store.postpone(attempt, 10**6, "down", sent=False)
    elif state in (State.HELD, State.UNKNOWN):
        assert await store.hold(attempt, state, "broken", entry())
    elif state in outcomes:
        assert await store.finish(attempt, outcomes[state], entry())
        return outcomes[state].code
    return None
