"""Makes what the demonstration needs and no repository may hold: private keys and the personnel database.

Idempotent: what is there stays as it is, so keys outlive a run while ``fresh`` begins the data anew. It
starts nothing. A crash half-way is mended by the next call.

    python config/demo/prepare.py
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it also runs as a plain file

from config import material
from config.demo import personnel
from config.material import Made

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


def prepare(*, fresh: bool = False) -> list[Made]:
    """Make what is missing; ``fresh`` forgets the data of the run before. Raises OSError or sqlite3.Error."""
    if fresh:
        shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir(parents=True, exist_ok=True)
    made = material.keys(KEYS, SIGNERS)
    new = not PERSONNEL.exists()
    if new:
        personnel.build(PERSONNEL)
    return [*made, Made("hrmis.sqlite", new)]


if __name__ == "__main__":
    for each in prepare():
        print(f"{'made' if each.new else 'kept'}  {each.name}")
