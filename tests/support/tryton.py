"""What tests of the adapters on Tryton share: settings for one that runs, and a look into its books beside the bus."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from config.systems.running import Copy
from config.systems.tryton import CREDENTIAL, DATABASE, USER


def settings(system: Copy, **more: Any) -> dict[str, Any]:
    """``[settings]`` of an adapter whose deployment lies anywhere."""
    password = str((system.place.folder / CREDENTIAL).resolve())
    return {"url": system.url, "database": DATABASE, "user": USER, "password": password} | more


def books(folder: Path, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Rows out of the database of the Tryton whose data lie in ``folder``."""
    file = (folder / f"{DATABASE}.sqlite").resolve()
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)) as database:
        return database.execute(statement, values).fetchall()


def number_of(folder: Path, table: str) -> int:
    """Of the rows of a table."""
    ((count,),) = books(folder, f"SELECT count(*) FROM {table}")
    return int(count)
