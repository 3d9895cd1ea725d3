"""The database of the social insurance fund, which stands behind the system ``social-insurance``: who is insured, which
employers pay in, what was paid for which month, and what each benefit asks for.

It is the fund's own, in SQLite or in PostgreSQL by the same statements, and knows nothing of the bus. Amounts are whole
hundredths, which both add up exactly. A crash half-way leaves no file of that name.

    python config/government/play/insurance.py var/systems/social-insurance/insurance.sqlite
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

SCHEMA = """
CREATE TABLE employers (number TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE insured (national_id TEXT PRIMARY KEY);
CREATE TABLE benefits (
    code TEXT PRIMARY KEY,
    required INTEGER NOT NULL,
    window_months INTEGER NOT NULL,
    percent INTEGER NOT NULL,
    currency TEXT NOT NULL
);
CREATE TABLE contributions (
    employer TEXT NOT NULL REFERENCES employers (number),
    person TEXT NOT NULL REFERENCES insured (national_id),
    period TEXT NOT NULL,
    month INTEGER NOT NULL,
    earnings BIGINT NOT NULL CHECK (earnings > 0),
    amount BIGINT NOT NULL CHECK (amount > 0),
    currency TEXT NOT NULL CHECK (currency = 'XOF'),
    exchange TEXT NOT NULL,
    PRIMARY KEY (employer, person, period)
);
CREATE INDEX contributions_by_person ON contributions (person, month);
"""
EMPLOYERS = (("EMP-00001", "Ministry of Education"), ("EMP-00002", "Karité SARL"))
BENEFITS = (
    ("sickness", 3, 6, 70, "XOF"),
    ("maternity", 6, 12, 100, "XOF"),
    ("old-age", 180, 720, 40, "XOF"),
)
"""Code; months that must have been paid, of so many up to the one that is asked about; percent of the average earnings
of the months that were paid."""
INSURED = 200
Row = tuple[str | int, ...]
ROWS: tuple[tuple[str, Sequence[Row]], ...] = (
    ("INSERT INTO employers VALUES (?, ?)", EMPLOYERS),
    ("INSERT INTO insured VALUES (?)", [(f"NID-{number:07}",) for number in range(1, INSURED + 1)]),
    ("INSERT INTO benefits VALUES (?, ?, ?, ?, ?)", BENEFITS),
)
"""What stands in the tables before the first contribution."""


def build(path: Path) -> None:
    """Write the database to ``path``, unless it is there. Raises OSError or sqlite3.Error."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    with closing(sqlite3.connect(unfinished)) as database:
        database.executescript(SCHEMA)
        for statement, rows in ROWS:
            database.executemany(statement, rows)
        database.commit()
        database.execute("PRAGMA journal_mode = WAL")
    unfinished.rename(path)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
