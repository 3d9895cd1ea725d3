"""Makes what the demonstration needs and no repository may hold: private keys and the personnel database.

Idempotent: what is there stays as it is, so keys outlive a run while ``fresh`` begins the data anew. It
starts nothing. A crash half-way is mended by the next call.

    python config/demo/prepare.py
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it also runs as a plain file

from config.demo import personnel
from gsb import jwk
from gsb.store.seal import new_key

CONFIG = Path(__file__).parent
KEYS = CONFIG / "keys"
DATA = CONFIG.parents[1] / "var" / "demo"
PERSONNEL = DATA / "hrmis.sqlite"
SIGNERS = {
    "bus": "ES256",
    "payroll-agency": "ES256",
    "audit-office": "Ed25519",
    "duty-operator": "ES256",
    "log": "Ed25519",
}
"""Who signs in the demonstration, and how; the bus accepts all three algorithms of the wire profile."""


@dataclass(frozen=True, slots=True)
class Made:
    """One thing that was needed, and whether it had to be made."""

    name: str
    new: bool


def prepare(*, fresh: bool = False) -> list[Made]:
    """Make what is missing; ``fresh`` forgets the data of the run before. Raises OSError or sqlite3.Error."""
    if fresh:
        shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir(parents=True, exist_ok=True)
    KEYS.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = [_private("store.key", lambda: new_key().encode() + b"\n")]
    for name, algorithm in SIGNERS.items():
        made.append(_private(f"{name}.jwk", partial(jwk.generate, algorithm)))
        (KEYS / f"{name}.public.jwk").write_bytes(jwk.public_of((KEYS / f"{name}.jwk").read_bytes()))
    new = not PERSONNEL.exists()
    if new:
        personnel.build(PERSONNEL)
    return [*made, Made("hrmis.sqlite", new)]


def _private(name: str, make: Callable[[], bytes]) -> Made:
    """A file that only its owner can read, written whole or not at all."""
    path = KEYS / name
    if path.exists():
        return Made(name, new=False)
    unfinished = path.with_name(name + ".new")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600, exist_ok=False)
    unfinished.write_bytes(make())
    unfinished.rename(path)
    return Made(name, new=True)


if __name__ == "__main__":
    for each in prepare():
        print(f"{'made' if each.new else 'kept'}  {each.name}")
