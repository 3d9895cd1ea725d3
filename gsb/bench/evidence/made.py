"""What the log is measured with: entries, a whole log on disk made quickly, and a bus without a node around it.

The entries are what the bus enters when it accepts an exchange, all alike but for the exchange's id. A log made here
has the files that a recorder would have left, but they are not durable: a crash leaves a folder that is worth nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from gsb import jwk
from gsb.broker.local import LocalBroker
from gsb.bus import Bus
from gsb.catalogue import build
from gsb.evidence.checkpoint import Checkpoint, Signer
from gsb.evidence.entry import make_entry
from gsb.evidence.log import CHECKPOINT, Edge, Files
from gsb.evidence.tiles import WIDTH
from gsb.foundation import store_of
from gsb.runtime import Runtime
from gsb.store.seal import new_key

STEP = 64 * WIDTH
"""Entries that are made at once."""
_EXCHANGE = "01a0c5a8-7f00-7000-8000-"
_NUMBER = "0" * 12
_FACTS = {
    "exchange": _EXCHANGE + _NUMBER,
    "agency": "payroll-agency",
    "service": "personnel/employee/v1",
    "purpose": "monthly-payroll",
    "agreement": "payroll-from-personnel",
    "agreement_digest": "d" * 43,
    "fields": ["/person", "/name", "/grade", "/step", "/family", "/account"],
    "key": "k" * 43,
}
_BEFORE, _, _AFTER = make_entry("accepted", 1_790_000_000.0, _FACTS, {}).content.partition(_NUMBER.encode())
_GSB = """
[bus]
id = "bus.bench"
base_urls = ["http://127.0.0.1:1"]
operations_url = "http://127.0.0.1:2"
keys = [{ file = "bus.jwk" }]
[store]
path = "store.db"
key = "store.key"
[log]
path = "log"
key = "log.jwk"
[adapters]
allow = []
"""
Told = Callable[[int], None]
"""Is told how many entries are done."""


def content(index: int) -> bytes:
    """About 500 bytes, in canonical form; of each index another."""
    return b"%s%012d%s" % (_BEFORE, index, _AFTER)


class MadeLog:
    """A log in a folder that grows; ``note`` is its checkpoint."""

    def __init__(self, folder: Path, signer: Signer, *, bundles: bool) -> None:
        """Without ``bundles`` there are hashes alone: a tenth of the size, and enough for receipts."""
        self.folder, self.signer, self.note = folder, signer, b""
        self._bundles = bundles
        self._edge, self._files = Edge(), Files(folder)

    def grow(self, size: int, told: Told) -> None:
        """Add entries up to this size, and sign."""
        while (old := self._edge.size) < size:
            # Up to the end of a tile, so that no partial ones are left behind but the last.
            changed = self._edge.extend([content(index) for index in range(old, min(size, old - old % STEP + STEP))])
            kept = {path: data for path, data in changed.items() if self._bundles or "entries" not in path}
            for path, data in kept.items():
                (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / path).write_bytes(data)
            self._files.forget(path for path in kept if ".p/" not in path)
            told(self._edge.size)
        self.note = self.signer.sign(Checkpoint(self.signer.verifier.name, size, self._edge.root()).text())
        (self.folder / CHECKPOINT).write_bytes(self.note)


@asynccontextmanager
async def bus_in(root: Path) -> AsyncIterator[Bus]:
    """A bus without services, its deployment in this empty folder, its store open, and nobody at work on it."""
    files = {
        "gsb.toml": _GSB.encode(),
        "bus.jwk": jwk.generate("ES256"),
        "log.jwk": jwk.generate("Ed25519"),
        "store.key": new_key().encode(),
    }
    for name, data in files.items():
        (root / name).write_bytes(data)
        (root / name).chmod(0o600)
    catalogue, runtime = build(root), Runtime()
    store = store_of(catalogue, runtime.metrics)
    await store.open()
    try:
        yield Bus(catalogue, store, LocalBroker(), runtime)
    finally:
        await store.close()
