"""Damages what a store has sealed, as a disk or a careless hand would: one bit of one exchange's request or reply."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Literal


def damage(store: Path, part: Literal["request", "reply"], exchange: str) -> None:
    """Flip the last bit of this part in a store that may be open."""
    with closing(sqlite3.connect(store, timeout=90)) as database, database:
        (row,) = database.execute(f"SELECT {part} FROM exchange WHERE id = ?", (exchange,)).fetchone()
        (sealed,) = database.execute("SELECT bytes FROM sealed WHERE row = ?", (row,)).fetchone()
        spoilt = sealed[:-1] + bytes([sealed[-1] ^ 1])
        database.execute("UPDATE sealed SET bytes = ? WHERE row = ?", (spoilt, row))
