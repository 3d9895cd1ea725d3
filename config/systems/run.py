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
from functools import partial

from config.government.prepare import prepare
from config.systems.base import HOST, ROOT, NotInstalled, Place, System
from config.systems.catalogue import NAMES, named
from config.systems.running import Copy, is_free

DATA = ROOT / "var" / "systems"
LOCK = ROOT / "var" / "systems.lock"
WIDTH = 40
CHECK_WITHIN = 60.0
"""Seconds for the one real call."""


class CannotBegin(Exception):
    """The text says why; nothing was changed."""


def install(systems: Sequence[System]) -> int:
    """Install what is not installed. 1 if something cannot be."""
    return 0 if _installed(systems) == list(systems) else 1


def start(systems: Sequence[System]) -> int:
    """Bring them there, to stay. 1 if some are not. Raises CannotBegin."""
    for system in systems:
        if _copy(system).pid is not None:
            raise CannotBegin(f"{system.title} runs already; make systems-stop stops what runs")
        if system.port and not is_free(system.port):
            where = f"{HOST}:{system.port}, where {system.title} would listen"
            raise CannotBegin(f"{where}, is taken by another program; end what listens there")
    begun = [_copy(system) for system in _installed(systems)]
    print("== starting, each with fresh data in var/systems")
    prepare()
    try:
        there = [copy for copy in begun if _told(copy.system, partial(_brought, copy))]
    except KeyboardInterrupt:
        for copy in begun:
            asyncio.run(copy.stop())
        raise
    if len(there) < len(systems):
        print(f"== {len(there)} of {len(systems)} run; make systems-stop stops them")
        return 1
    print("== all run, for the deployment config/government; make systems-stop stops them")
    return 0


def stop(systems: Sequence[System]) -> int:
    """End what runs. 1 if something cannot be."""
    copies = [copy for system in reversed(systems) if (copy := _copy(system)).pid is not None]
    if not copies:
        print("== none runs")
    stopped = [copy for copy in copies if _told(copy.system, partial(_stopped, copy))]
    return 0 if stopped == copies else 1


ACTS: dict[str, Callable[[Sequence[System]], int]] = {"install": install, "start": start, "stop": stop}


def main(words: Sequence[str]) -> int:
    """The exit code."""
    if not words or words[0] not in ACTS or not set(words[1:]) <= set(NAMES):
        print(f"usage: python -m config.systems.run {'|'.join(ACTS)} [NAME...], of {', '.join(NAMES)}", file=sys.stderr)
        return 2
    try:
        with _alone():
            return ACTS[words[0]]([named(name) for name in words[1:] or NAMES])
    except CannotBegin as problem:
        print(f"Cannot begin: {problem}")
        return 2
    except KeyboardInterrupt:
        print("\nStopped before the end; the next call takes it up again.")
        return 130


@contextmanager
def _alone() -> Iterator[None]:
    """One at a time installs, starts or stops from this folder. Raises CannotBegin."""
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotBegin("make systems, or what stops or installs them, is at work in this folder") from None
        yield


def _copy(system: System) -> Copy:
    return Copy(system, Place(DATA / system.name, system.port))


def _installed(systems: Sequence[System]) -> list[System]:
    """Those that are, after what is missing was installed."""
    print("== installing what is not installed yet")
    return [system for system in systems if _told(system, partial(_install, system))]


def _install(system: System) -> str:
    if system.missing() is None:
        return "is installed"
    began = time.monotonic()
    system.install()
    if (lack := system.missing()) is not None:
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


def _told(system: System, work: Callable[[], str]) -> bool:
    """Do the work and print a line about it; whether it was done."""
    print(f"   {system.title:<{WIDTH}} ", end="", flush=True)
    try:
        print(work())
    except Exception as error:  # whatever is wrong with one system, the others go on
        print(f"FAILED: {str(error).removeprefix(f'{system.title}: ') or type(error).__name__}")
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
