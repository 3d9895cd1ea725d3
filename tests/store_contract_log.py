"""What every store must do for the evidence log (``gsb.store.logs``). See ``tests.store_contract``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import count

import pytest

from gsb.evidence.entry import make_entry
from gsb.model import Effect, Entry, new_id
from gsb.store.contract import Store
from gsb.store.logs import Backlog, LogMoved, LogState
from tests.support.stores import Clock, Maker, accepted, done, entry

FIRST, SECOND = "bus.example/log/2026", "bus.example/log/2027"


async def opened(store: Store) -> Entry:
    """Begin the first log; answers its first entry."""
    begun = entry("log_begun", origin=FIRST)
    await store.begin_log(FIRST, begun)
    return begun


async def noted(store: Store, count: int) -> list[Entry]:
    """So many entries of their own, committed one after the other."""
    made = [entry("note", number=f"{number}-{new_id()}") for number in range(count)]
    for one in made:
        await store.note(one)
    return made


async def placed(store: Store, limit: int = 4_096) -> list[tuple[str, bytes]]:
    """Sequence all there is, ``limit`` at a time: in which log, and what."""
    found: list[tuple[str, bytes]] = []
    before = {one.origin: one.size for one in await store.logs()}
    while (given := await store.unsequenced(limit)) is not None:
        assert 0 < len(given.contents) <= limit
        assert given.size == before[given.origin] + sum(origin == given.origin for origin, _ in found)
        await store.sequence(given, note(given.origin, given.size + len(given.contents)))
        found += [(given.origin, content) for content in given.contents]
    return found


def note(origin: str, size: int, by: str = "log") -> bytes:
    """Stands for a signed checkpoint; the store never reads one."""
    return f"{origin}\n{size}\n\n— {by} \x00\n".encode()


async def state(store: Store, origin: str) -> LogState:
    (found,) = [one for one in await store.logs() if one.origin == origin]
    return found


def contents(entries: Sequence[Entry]) -> list[bytes]:
    return [one.content for one in entries]


class LogContract:
    """A part of ``tests.store_contract.StoreContract``."""

    # --- beginning and changing logs ------------------------------------------------------------------------

    async def test_without_a_log_nothing_can_be_sequenced(self, store: Store) -> None:
        made = await noted(store, 2)
        assert await store.logs() == []
        assert await store.unsequenced(10) is None
        assert not await store.entries(FIRST, 0, 10)
        assert (await store.backlog()).entries == len(made)

    async def test_a_log_begins_with_its_beginning_and_takes_in_what_was_there(self, store: Store) -> None:
        before = await noted(store, 3)
        made = await accepted(store)
        begun = await opened(store)
        after = await noted(store, 2)
        assert await store.logs() == [LogState(FIRST, 0, b"", 0, b"", None, False)]
        given = await store.unsequenced(100)
        assert given is not None
        every = [begun, *before, made.entry, *after]
        assert (given.origin, given.size) == (FIRST, 0)
        assert list(given.contents) == contents(every)
        assert list(given.leaves) == [one.leaf for one in every]
        assert [one.leaf for one in await store.evidence(made.id)] == [made.entry.leaf]

    async def test_what_is_asked_together_with_a_beginning_is_in_the_log(self, store: Store) -> None:
        made = [entry("note", number=f"{number}") for number in range(20)]
        begun = entry("log_begun")
        asked = [store.note(one) for one in made]
        await asyncio.gather(*asked[:10], store.begin_log(FIRST, begun), *asked[10:])
        found = [content for _, content in await placed(store)]
        assert found[0] == begun.content
        assert sorted(found[1:]) == sorted(contents(made))

    async def test_a_log_is_followed_by_another_and_completed_first(self, store: Store, maker: Maker) -> None:
        begun = await opened(store)
        first = await noted(store, 5)
        ended, other = entry("log_ended"), entry("log_begun", origin=SECOND)
        await store.begin_log(SECOND, other, after=FIRST, ended=ended)
        second = await noted(store, 4)
        assert [one.closed for one in await store.logs()] == [True, False]
        store = await maker.crash(store)
        expected = [(FIRST, content) for content in contents([begun, *first, ended])]
        expected += [(SECOND, content) for content in contents([other, *second])]
        assert await placed(store, 4) == expected
        assert [(one.origin, one.size, one.closed) for one in await store.logs()] == [
            (FIRST, 7, True),
            (SECOND, 5, False),
        ]
        assert list(await store.entries(FIRST, 5, 100)) == contents([first[-1], ended])
        assert list(await store.entries(SECOND, 0, 2)) == contents([other, second[0]])

    async def test_of_one_that_is_not_continued_the_rest_goes_to_the_next(self, store: Store, maker: Maker) -> None:
        begun = await opened(store)
        first = await noted(store, 3)
        await placed(store)
        made = await accepted(store)
        rest = [made.entry, *await noted(store, 2)]
        stale = await store.unsequenced(2)
        assert stale is not None
        other = entry("log_begun", old=FIRST)
        await store.begin_log(SECOND, other, after=FIRST)
        assert [(one.size, one.published, one.closed) for one in await store.logs()] == [(4, 4, True), (0, 0, False)]
        assert (await store.backlog()).entries == 4
        with pytest.raises(LogMoved):
            await store.sequence(stale, note(FIRST, 6))
        store = await maker.crash(store)
        assert await placed(store) == [(SECOND, content) for content in contents([other, *rest])]
        assert list(await store.entries(FIRST, 0, 100)) == contents([begun, *first])
        (found,) = await store.entered(made.id)
        assert (found.origin, found.index) == (SECOND, 1)
        assert [one.secret for one in await store.evidence(made.id)] == [made.entry.secret]

    async def test_a_log_begins_only_after_the_open_one(self, store: Store) -> None:
        with pytest.raises(LogMoved):
            await store.begin_log(SECOND, entry(), after=FIRST, ended=entry())
        await opened(store)
        for origin, after in ((SECOND, None), (SECOND, "another"), (FIRST, FIRST), (FIRST, None)):
            with pytest.raises(LogMoved):
                await store.begin_log(origin, entry(), after=after, ended=entry())
        await store.begin_log(SECOND, entry(), after=FIRST, ended=entry())
        with pytest.raises(LogMoved):
            await store.begin_log("third", entry(), after=FIRST, ended=entry())
        with pytest.raises(LogMoved):
            await store.begin_log(FIRST, entry(), after=SECOND, ended=entry())
        assert [one.origin for one in await store.logs()] == [FIRST, SECOND]
        assert len(await placed(store)) == 3

    async def test_of_many_beginnings_one_wins(self, store: Store) -> None:
        begun = [entry("log_begun", number=f"{number}") for number in range(10)]
        answers = await asyncio.gather(*(store.begin_log(FIRST, one) for one in begun), return_exceptions=True)
        (won,) = [one for one, answer in zip(begun, answers, strict=True) if answer is None]
        assert [type(answer) for answer in answers if answer is not None] == [LogMoved] * 9
        assert await placed(store) == [(FIRST, won.content)]

    # --- sequencing -----------------------------------------------------------------------------------------

    async def test_entries_are_shown_in_order_until_they_have_their_places(self, store: Store, maker: Maker) -> None:
        every = contents([await opened(store), *await noted(store, 5)])
        given, again = await store.unsequenced(4), await store.unsequenced(4)
        assert given is not None
        assert again is not None
        assert list(given.contents) == list(again.contents) == every[:4]
        await noted(store, 1)
        await store.sequence(given, note(FIRST, 4))
        assert await state(store, FIRST) == LogState(FIRST, 4, note(FIRST, 4), 0, b"", None, False)
        assert list(await store.entries(FIRST, 0, 100)) == every[:4]
        store = await maker.crash(store)
        assert await state(store, FIRST) == LogState(FIRST, 4, note(FIRST, 4), 0, b"", None, False)
        given = await store.unsequenced(100)
        assert given is not None
        assert (given.size, list(given.contents)[:2]) == (4, every[4:])

    @pytest.mark.parametrize("limit", [1, 7, 1_000])
    async def test_a_portion_holds_at_most_so_many(self, store: Store, limit: int) -> None:
        every = [await opened(store), *await noted(store, 20)]
        assert await placed(store, limit) == [(FIRST, content) for content in contents(every)]
        assert await store.unsequenced(limit) is None

    async def test_whoever_is_behind_changes_nothing(self, store: Store) -> None:
        await opened(store)
        await noted(store, 3)
        old = await store.unsequenced(2)
        assert old is not None
        await store.sequence(old, note(FIRST, 2))
        for wrong in (old, replace(old, size=1), replace(old, size=3), replace(old, origin=SECOND)):
            with pytest.raises(LogMoved):
                await store.sequence(wrong, b"forked")
        assert await state(store, FIRST) == LogState(FIRST, 2, note(FIRST, 2), 0, b"", None, False)

    async def test_of_many_recorders_one_wins(self, store: Store) -> None:
        await opened(store)
        await noted(store, 5)
        given = [await store.unsequenced(limit) for limit in range(1, 7)]
        notes = [note(FIRST, 0 if one is None else len(one.contents)) for one in given]
        answers = await asyncio.gather(
            *(store.sequence(one, made) for one, made in zip(given, notes, strict=True) if one is not None),
            return_exceptions=True,
        )
        (won,) = [number for number, answer in enumerate(answers) if answer is None]
        assert [type(answer) for answer in answers if answer is not None] == [LogMoved] * 5
        found = await state(store, FIRST)
        assert (found.size, found.checkpoint) == (won + 1, notes[won])

    async def test_every_entry_gets_one_place_while_exchanges_go_on(self, store: Store) -> None:
        begun = await opened(store)
        busy = asyncio.gather(*(done(store, Effect.NONE) for _ in range(60)))
        found: list[bytes] = []
        while not busy.done():
            found += [content for _, content in await placed(store, 7)]
            await asyncio.sleep(0)
        found += [content for _, content in await placed(store, 7)]
        made = await busy
        assert found[0] == begun.content
        assert len(found) == len(set(found)) == 1 + 2 * len(made)
        assert set(contents([one.entry for one in made])) < set(found)
        assert list(await store.entries(FIRST, 0, 1_000)) == found
        for one in made:
            entered = await store.entered(one.id)
            assert [found[each.index] for each in entered if each.index is not None] == [
                each.entry.content for each in entered
            ]

    @pytest.mark.parametrize("size", [2, 65_535])
    async def test_contents_come_back_byte_for_byte(self, store: Store, size: int) -> None:
        begun = await opened(store)
        text = '"' + "ä€𝄞"[: size // 8] + "x" * (size - 2 - len("ä€𝄞"[: size // 8].encode())) + '"'
        odd = replace(entry(), content=text.encode(), leaf=bytes(range(32)))
        await store.note(odd)
        given = await store.unsequenced(10)
        assert given is not None
        assert (list(given.contents), given.leaves[1]) == ([begun.content, odd.content], odd.leaf)

    async def test_only_what_is_sequenced_can_be_read(self, store: Store) -> None:
        every = contents([await opened(store), *await noted(store, 4)])
        given = await store.unsequenced(3)
        assert given is not None
        await store.sequence(given, note(FIRST, 3))
        for start, limit in ((0, 3), (0, 99), (1, 1), (2, 5), (3, 1), (99, 1), (0, 0)):
            assert list(await store.entries(FIRST, start, limit)) == every[:3][start : start + limit]
        assert not await store.entries(FIRST, -1, 3)
        assert not await store.entries(SECOND, 0, 3)

    # --- publishing -----------------------------------------------------------------------------------------

    async def test_what_is_published_only_grows(self, store: Store, maker: Maker, clock: Clock) -> None:
        await opened(store)
        await noted(store, 4)
        await placed(store)
        clock.pass_(3)
        await store.publish(FIRST, 3, note(FIRST, 3))
        assert await state(store, FIRST) == LogState(FIRST, 5, note(FIRST, 5), 3, note(FIRST, 3), clock.now, False)
        clock.pass_(5)
        await store.publish(FIRST, 3, note(FIRST, 3, "witness"))
        expected = LogState(FIRST, 5, note(FIRST, 5), 3, note(FIRST, 3, "witness"), clock.now, False)
        for origin, size in ((FIRST, 2), (FIRST, 6), (SECOND, 3)):
            with pytest.raises(LogMoved):
                await store.publish(origin, size, b"wrong")
        store = await maker.crash(store)
        assert await state(store, FIRST) == expected
        await store.publish(FIRST, 5, note(FIRST, 5))
        assert (await state(store, FIRST)).published == 5

    async def test_the_backlog_is_what_is_not_published(self, store: Store) -> None:
        seconds = count(1_800_000_000)

        async def noted_at() -> float:
            at = next(seconds)
            await store.note(make_entry("note", at, {}, {}))
            return at

        assert await store.backlog() == Backlog(0, None)
        first = await noted_at()
        await noted_at()
        assert await store.backlog() == Backlog(2, first)
        at = next(seconds)
        await store.begin_log(FIRST, make_entry("log_begun", at, {}, {}))
        assert await store.backlog() == Backlog(3, at)
        await placed(store)
        assert await store.backlog() == Backlog(3, at)
        await store.publish(FIRST, 2, note(FIRST, 2))
        assert await store.backlog() == Backlog(1, first + 1)
        ending, beginning = next(seconds), next(seconds)
        moved = make_entry("log_ended", ending, {}, {}), make_entry("log_begun", beginning, {}, {})
        await store.begin_log(SECOND, moved[1], after=FIRST, ended=moved[0])
        assert await store.backlog() == Backlog(3, first + 1)
        await placed(store)
        await store.publish(FIRST, 4, note(FIRST, 4))
        assert await store.backlog() == Backlog(1, beginning)
        await store.publish(SECOND, 1, note(SECOND, 1))
        assert await store.backlog() == Backlog(0, None)

    async def test_an_entry_that_tells_no_time_is_counted_all_the_same(self, store: Store) -> None:
        for content in (b"1", b"{}", b'{"at":7}', b'{"at":"soon"}', b"\xff"):
            await store.note(replace(entry(), content=content))
        assert await store.backlog() == Backlog(5, None)

    # --- places of entries ----------------------------------------------------------------------------------

    async def test_the_entries_of_an_exchange_are_told_with_their_places(self, store: Store, maker: Maker) -> None:
        await opened(store)
        await noted(store, 2)
        made = await done(store)
        found = await store.exchange(made.id)
        assert found is not None
        assert [(one.entry, one.origin, one.index) for one in await store.entered(made.id)] == [
            (each, None, None) for each in found.entries
        ]
        given = await store.unsequenced(4)
        assert given is not None
        await store.sequence(given, note(FIRST, 4))
        assert [(one.origin, one.index) for one in await store.entered(made.id)] == [(FIRST, 3), (None, None)]
        await store.begin_log(SECOND, entry(), after=FIRST, ended=entry())
        other = await done(store)
        await placed(store)
        store = await maker.crash(store)
        assert [(one.origin, one.index) for one in await store.entered(made.id)] == [(FIRST, 3), (FIRST, 4)]
        assert [(one.origin, one.index) for one in await store.entered(other.id)] == [(SECOND, 1), (SECOND, 2)]

    async def test_the_evidence_of_entries_is_told(self, store: Store, maker: Maker) -> None:
        made = await done(store)
        store = await maker.crash(store)
        first, second = await store.evidence(made.id)
        assert first == (made.entry.leaf, made.entry.secret)
        assert second.secret is not None
        assert second.secret.endswith(b'{"evidence":"canary-evidence"}')

    async def test_of_what_is_not_known_there_is_nothing(self, store: Store) -> None:
        verbs: list[Callable[[str], Awaitable[Sequence[object]]]] = [store.entered, store.evidence]
        assert [list(await verb(new_id())) for verb in verbs] == [[], []]
