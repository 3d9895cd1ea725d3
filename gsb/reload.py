"""Reload: another catalogue in the place of the old one, whole or not at all, while exchanges go on.

Read and judged as at the start; what is new is opened; the change is an entry; and only then, in one step, everything
looks at the new catalogue. Whatever goes wrong before that step leaves the old one in force. Exchanges that run are
finished on the adapters that began them. A crash forgets a reload that was not finished: the next start reads anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel

from gsb.bus import Bus
from gsb.catalogue import Catalogue, ConfigInvalid, build
from gsb.config import Gsb, KeyFile, Tls
from gsb.errors import SigningUnavailable, StoreUnavailable
from gsb.evidence.entry import Fact, make_entry
from gsb.forms import Table
from gsb.keys import BusKeys
from gsb.load import Finding, files
from gsb.model import Entry

log = logging.getLogger("gsb.reload")

INTERVAL = 0.5
"""Seconds between two looks at the files, and for which they must be still before they are read."""
TRIES = 5
"""How often files are read again that changed while they were read."""
WATCHED = (".toml", ".json", ".jwk")
"""Endings of the files in the deployment's folder that count; what the catalogue names counts in any case."""

Cause = Literal["signal", "watch"]
Mark = tuple[int, ...]
"""What tells two states of a file apart without reading it."""
FIXED = (
    ("bus", "id"),
    ("bus", "hsm"),
    ("listen", None),
    ("store", None),
    ("log", None),
    ("retention", None),
    ("broker", None),
    ("tracing", None),
)
"""Tables of gsb.toml that a running node cannot change, or of one only this setting."""
TURNING = {("log", "key"), ("log", "former")}
"""Settings of them that it can change all the same."""
HASTY = (
    "a key would sign that callers have not heard of: keep the one before active until they have (since, until), or "
    'say that it is not to be trusted: state = "revoked"'
)
LEFT = "the key before is needed to end what it has begun: name it in log.former"


@dataclass(frozen=True, slots=True)
class Marks:
    """How the files were at one moment; None is a file that was not there."""

    found: Mapping[Path, Mark | None]
    """In the folders. One more or one less is a change."""
    named: Mapping[Path, Mark | None]
    """Keys and secrets, wherever they are. Which ones that are depends on the catalogue, so only those count that are
    known to both of two moments."""

    def same(self, other: Marks) -> bool:
        return self.found == other.found and all(
            other.named.get(path, mark) == mark for path, mark in self.named.items()
        )


class Reloader:
    """Reloads when asked, and by itself where the deployment says so. ``swapped`` is called after each change."""

    def __init__(self, bus: Bus, folder: Path, asked: asyncio.Event, swapped: Callable[[], None]) -> None:
        self._bus = bus
        self._folder = folder
        self._asked = asked
        self._swapped = swapped
        self._alone = asyncio.Lock()
        self._read: Marks | None = self._marks()
        """The files as they were read last, whether they were taken up or refused."""
        self._seen = self._read
        """The files as they were at the last look."""

    async def run(self) -> None:
        """Until cancelled. Nothing that goes wrong with a reload ends it, or the node."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    await self._asked.wait()
            try:
                if self._asked.is_set():
                    self._asked.clear()
                    await self.reload("signal")
                elif self._bus.catalogue.gsb.reload == "watch" and await self._changed():
                    await self.reload("watch")
            except Exception:
                # Building runs foreign code, the adapters', and whatever it does must not end what works.
                log.exception("reload failed; the old catalogue stays")

    async def reload(self, cause: Cause) -> bool:
        """Take up what the files say now. False when the old catalogue stays; then the log and an entry say why."""
        async with self._alone:
            try:
                return await self._reload(cause)
            except ConfigInvalid as error:
                await self._refused(cause, error.findings)
            except StoreUnavailable:
                self._read = None  # so that a watcher tries again
                log.error("reload not taken up: the store did not take its entry; the old catalogue stays")
            self._bus.metrics.reloaded(taken_up=False)
            return False

    async def _reload(self, cause: Cause) -> bool:
        bus, old = self._bus, self._bus.catalogue
        new = await asyncio.to_thread(self._build)
        wrong = [*needs_restart(old.gsb, new.gsb), *hasty(old.bus_keys, new.bus_keys, bus.clock())]
        if public(old.log_key) not in map(public, new.log_keys):
            wrong.append(Finding("gsb.toml", "log.former", LEFT))
        if wrong:
            raise ConfigInvalid(wrong)
        prepared = await bus.runtime.prepare(new)
        try:
            await bus.store.note(self._entry("reload", cause, {"new": new.digest}, {}))
        except BaseException:
            await bus.runtime.discard(prepared)
            raise
        # One step of the event loop: nobody sees one catalogue's services with another's adapters.
        bus.runtime.swap(prepared)
        bus.take_up(new)
        self._swapped()
        bus.metrics.reloaded(taken_up=True)
        facts = {"cause": cause, "old": old.digest, "catalogue": new.digest}
        log.info("reloaded", extra={"facts": facts | {"opened": sorted(line.name for line in prepared.opened)}})
        return True

    async def _refused(self, cause: Cause, findings: Iterable[Finding]) -> None:
        told = [str(finding) for finding in findings]
        log.error("reload refused; the old catalogue stays", extra={"facts": {"cause": cause, "findings": len(told)}})
        for each in told:
            log.error("reload finding", extra={"facts": {"finding": each}})
        try:
            # Evidence and not facts: a finding quotes paths and names that an auditor's entry has no use for.
            entry = self._entry("reload_refused", cause, {"findings": len(told)}, {"findings": told})
            await self._bus.store.note(entry)
        except StoreUnavailable:
            log.error("the store did not take the entry of a refused reload")

    def _entry(self, act: str, cause: Cause, facts: Mapping[str, Fact], evidence: Mapping[str, object]) -> Entry:
        said: dict[str, Fact] = {"act": act, "cause": cause, "old": self._bus.catalogue.digest}
        return make_entry("act", self._bus.clock(), {**said, **facts}, evidence)

    # --- the files

    def _build(self) -> Catalogue:
        """What the files say at one moment. Raises ConfigInvalid."""
        for _ in range(TRIES):
            before = self._marks()
            catalogue, findings = built(self._folder)
            if not before.same(self._marks()):
                continue  # what was read may be of two versions
            self._read = before
            if catalogue is None:
                raise ConfigInvalid(findings)
            return catalogue
        raise ConfigInvalid([Finding(str(self._folder), "", "its files change again and again while they are read")])

    async def _changed(self) -> bool:
        """Whether the files are others than those read last, and still."""
        now = await asyncio.to_thread(self._marks)
        before, self._seen = self._seen, now
        if not now.same(before):
            return False
        if self._read is None or not now.same(self._read):
            return True
        self._read = now  # it knows the files that only the newest catalogue names
        return False

    def _marks(self) -> Marks:
        catalogue = self._bus.catalogue
        folders = [self._folder]
        if not catalogue.gsb.schemas.is_relative_to(catalogue.folder):
            folders.append(catalogue.gsb.schemas)
        found = (folder / file for folder in folders for file in files(folder, *WATCHED))
        tls = catalogue.gsb.listen.tls
        certificate = (tls.certificate, tls.key) if isinstance(tls, Tls) else ()
        named = self._bus.runtime.secrets.union((key.file for key in _keys(catalogue)), certificate)
        return Marks({path: _mark(path) for path in found}, {path: _mark(path) for path in named})


def built(folder: Path) -> tuple[Catalogue | None, list[Finding]]:
    """The catalogue, or everything that keeps it from being one."""
    try:
        return build(folder), []
    except ConfigInvalid as error:
        return None, error.findings
    except OSError as error:
        return None, [Finding(str(error.filename or folder), "", f"cannot be read: {error.strerror or error}")]


def needs_restart(old: Gsb, new: Gsb) -> Iterator[Finding]:
    """A finding for each setting that differs and that a running node cannot change."""
    for table, only in FIXED:
        # A table that is not there is as good as one without settings.
        was, now = (_plain(getattr(each, table) or Table()) for each in (old, new))
        for name in sorted(was.keys() | now.keys()):
            if only in (None, name) and (table, name) not in TURNING and was.get(name) != now.get(name):
                yield Finding("gsb.toml", f"{table}.{name}", "a running node cannot change this; restart it")


def hasty(old: BusKeys, new: BusKeys, now: float) -> Iterator[Finding]:
    """A finding where a key would sign at once that nobody can know yet, while the one before is still trusted."""
    with suppress(SigningUnavailable):
        before, after = old.signing(now).kid, new.signing(now).kid
        if after not in old.public and not new.revoked(before, now):
            yield Finding("gsb.toml", "bus.keys", HASTY)


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def _plain(table: BaseModel) -> dict[str, Any]:
    """Paths as the places that they lead to: the same file may be reached through another version of the folder."""
    return {name: value.resolve() if isinstance(value, Path) else value for name, value in table}


def _keys(catalogue: Catalogue) -> Iterator[KeyFile]:
    yield from catalogue.gsb.bus.keys
    for agency in catalogue.agencies.values():
        yield from agency.keys
    for operator in catalogue.operators.values():
        yield from operator.keys


def _mark(path: Path) -> Mark | None:
    try:
        status = path.stat()
    except OSError:
        return None
    # A link that leads elsewhere now leads to another inode, whatever the times and sizes of both.
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
