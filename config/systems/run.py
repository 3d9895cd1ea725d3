"""``make systems`` and ``make systems-stop``: the real core systems, started to stay, and stopped again.

    python -m config.systems.run install [NAME...]     # what is not installed yet
    python -m config.systems.run start [NAME...]       # install, lay fresh data, start, seed, check
    python -m config.systems.run stop [NAME...]

Without names it is all of them. Each keeps its data and what it says in ``var/systems/NAME`` and runs on when this
ends; the next start begins with fresh data. A system that cannot be installed, started or called names itself, and the
others go on. Exit code: 0, 1 when a system was not brought there, 2 when it could not begin, 130 when it was
interrupted: then what it had started is stopped. If it is killed outright the systems run on; ``stop`` finds them.
"""

from __future__ import annotations

import asyncio
import fcntl
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from config.government.prepare import prepare
from config.systems import catalogue
from config.systems.base import HOST, ROOT, NotInstalled, Place, System
from config.systems.running import Copy, is_free

DATA = ROOT / "var" / "systems"
WIDTH = 40
CHECK_WITHIN = 60.0
"""Seconds for the one real call."""


class CannotBegin(Exception):
    """The text says why; nothing was changed."""


def install(copies: Sequence[Copy]) -> int:
    """Install what is not installed. 1 if something cannot be."""
    return 0 if _installed(copies) == copies else 1


def start(copies: Sequence[Copy]) -> int:
    """Bring them there, to stay. 1 if some are not. Raises CannotBegin."""
    for copy in copies:
        if copy.pid is not None:
            raise CannotBegin(f"{copy.system.title} runs already; make systems-stop stops what runs")
        if copy.port and not is_free(copy.port):
            where = f"{HOST}:{copy.port}, where {copy.system.title} would listen"
            raise CannotBegin(f"{where}, is taken by another program; end what listens there")
    begun = _installed(copies)
    print("== starting, each with fresh data in var/systems")
    prepare()
    try:
        there = [copy for copy in begun if _told(copy, _brought)]
    except KeyboardInterrupt:
        for copy in begun:
            asyncio.run(copy.stop())
        raise
    if len(there) < len(copies):
        print(f"== {len(there)} of {len(copies)} run; make systems-stop stops them")
        return 1
    print("== all run, for the deployment config/government; make systems-stop stops them")
    return 0


def stop(copies: Sequence[Copy]) -> int:
    """End what runs. 1 if something cannot be."""
    at_work = [copy for copy in reversed(copies) if copy.pid is not None]
    if not at_work:
        print("== none runs")
    stopped = [copy for copy in at_work if _told(copy, _stopped)]
    return 0 if stopped == at_work else 1


ACTS: dict[str, Callable[[Sequence[Copy]], int]] = {"install": install, "start": start, "stop": stop}


def main(words: Sequence[str], systems: Sequence[System], data: Path = DATA) -> int:
    """Do what the words say with those of the systems that they name, in folders below ``data``; the exit code."""
    known = {system.name: Copy(system, Place(data / system.name, system.port)) for system in systems}
    if not words or words[0] not in ACTS or not set(words[1:]) <= set(known):
        print(f"usage: python -m config.systems.run {'|'.join(ACTS)} [NAME...], of {', '.join(known)}", file=sys.stderr)
        return 2
    try:
        with _alone(data):
            return ACTS[words[0]]([known[name] for name in words[1:] or known])
    except CannotBegin as problem:
        print(f"Cannot begin: {problem}")
        return 2
    except KeyboardInterrupt:
        print("\nStopped before the end; the next call takes it up again.")
        return 130


@contextmanager
def _alone(data: Path) -> Iterator[None]:
    """One at a time installs, starts or stops in this folder. Raises CannotBegin."""
    data.mkdir(parents=True, exist_ok=True)
    with (data / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotBegin("another command installs, starts or stops systems now; wait for it") from None
        yield


def _installed(copies: Sequence[Copy]) -> list[Copy]:
    """Those whose systems are, after what is missing was installed."""
    print("== installing what is not installed yet")
    return [copy for copy in copies if _told(copy, _install)]


def _install(copy: Copy) -> str:
    if copy.system.missing() is None:
        return "is installed"
    began = time.monotonic()
    copy.system.install()
    if (lack := copy.system.missing()) is not None:
        raise NotInstalled(lack)
    return f"installed in {time.monotonic() - began:.0f} s"


def _brought(copy: Copy) -> str:
    return asyncio.run(_bring(copy))


async def _bring(copy: Copy) -> str:
    began = time.monotonic()
    try:
        await copy.begin()
        ready = time.monotonic() - began
        async with asyncio.timeout(CHECK_WITHIN):
            showed = await copy.system.check(copy.place)
    except BaseException:
        await copy.stop()
        raise
    where = f"{copy.host}:{copy.port}" if copy.port else "listens nowhere"
    return f"{where:<16} {ready:5.1f} s  {showed}"


def _stopped(copy: Copy) -> str:
    asyncio.run(copy.stop())
    return "stopped"


def _told(copy: Copy, work: Callable[[Copy], str]) -> bool:
    """Do the work and print a line about it; whether it was done."""
    title = copy.system.title
    print(f"   {title:<{WIDTH}} ", end="", flush=True)
    try:
        print(work(copy))
    except Exception as error:  # whatever is wrong with one system, the others go on
        print(f"FAILED: {str(error).removeprefix(f'{title}: ').removeprefix(f'{title} ') or type(error).__name__}")
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], catalogue.systems()))
