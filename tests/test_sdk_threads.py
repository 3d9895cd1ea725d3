"""Code that blocks, in threads: bounded, never begun in vain, and deaf to nobody's giving up."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from gsb.sdk import Clock, Context, Http, NoSettings, Unavailable
from gsb.sdk.threads import Threads
from gsb.telemetry import trace

NAME = "gsb-adapter"


async def test_what_a_thread_returns_or_raises_comes_back_with_the_trace_at_hand() -> None:
    threads = Threads(1)
    trace.set("here")
    assert await threads.run(told, "a", more=1) == ("a", 1, "here")
    for error in (ValueError("x"), KeyError("y")):
        with pytest.raises(type(error)) as raised:
            await threads.run(raising, error)
        assert raised.value is error
    with pytest.raises(RuntimeError, match="StopIteration"):
        await threads.run(raising, StopIteration())
    with pytest.raises(RuntimeError, match="was ended"):
        await threads.run(raising, SystemExit(3))
    assert threads.busy == 0


def told(word: str, *, more: int) -> tuple[str, int, str | None]:
    return word, more, trace.get()


def raising(error: BaseException) -> None:
    raise error


async def test_a_call_that_finds_no_thread_was_not_begun() -> None:
    threads, go, begun = Threads(2), threading.Event(), []

    def work(number: int) -> int:
        begun.append(number)
        go.wait()
        return number

    running = [asyncio.create_task(threads.run(work, number)) for number in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as raised:
        await threads.run(work, 3)
    assert (raised.value.sent, threads.busy) == (False, 2)
    go.set()
    assert await asyncio.gather(*running) == [0, 1]
    assert sorted(begun) == [0, 1]


async def test_a_call_that_is_given_up_keeps_its_thread_until_that_ends() -> None:
    threads, go, ended = Threads(1), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work() -> None:
        go.wait()
        loop.call_soon_threadsafe(ended.set)

    given_up = asyncio.create_task(threads.run(work))
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    with pytest.raises(Unavailable):
        await threads.run(lambda: None)
    go.set()
    async with asyncio.timeout(90):
        await ended.wait()
        await asyncio.gather(*(asyncio.to_thread(each.join) for each in threading.enumerate() if each.name == NAME))
    await asyncio.sleep(0)
    assert await threads.run(lambda: "again") == "again"


async def test_no_thread_of_the_machine_is_nothing_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    threads = Threads(1)
    with pytest.raises(Unavailable) as raised:
        await threads.run(lambda: None)
    assert (raised.value.sent, threads.busy) == (False, 0)


def test_a_thread_that_never_returns_does_not_keep_a_loop_or_process_from_ending() -> None:
    go, before = threading.Event(), set(threading.enumerate())  # the last test's thread may still be ending

    async def leave() -> Threads:
        threads = Threads(1)
        task = asyncio.create_task(threads.run(go.wait))
        await asyncio.sleep(0)
        task.cancel()
        return threads

    threads = asyncio.run(leave())
    (left,) = [each for each in threading.enumerate() if each.name == NAME and each not in before]
    assert left.daemon
    assert threads.busy == 1
    go.set()
    left.join(90)
    assert not left.is_alive()


async def test_the_context_gives_threads_and_time() -> None:
    async with Http(1.0) as http:
        log = logging.getLogger("gsb.system.test")
        context: Context[Any, Any] = Context("test", NoSettings(), {}, http, log, Clock(lambda: 7.0, lambda: 8.0))
        assert await context.in_thread(threading.current_thread) is not threading.current_thread()
        assert (context.clock.now(), context.clock.steady()) == (7.0, 8.0)
