"""Builds the personnel database that stands behind the system ``hrmis``: 5,000 generated civil servants.

A small relational database as a human-resources system would have it, in one SQLite file, always the same for
the same seed. It knows nothing of the bus. A payslip is deliberately *not* unique per employee and month: if the
bus ever let a payslip through twice, a second row would show it. A crash half-way leaves no file of that name.

    python -m config.demo.personnel var/demo/hrmis.sqlite
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

from config.demo import names

SEED = 20260101
CURRENCY = "XOF"

SCHEMA = """
CREATE TABLE ministries (code TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE departments (
    id INTEGER PRIMARY KEY,
    ministry TEXT NOT NULL REFERENCES ministries (code),
    name TEXT NOT NULL,
    UNIQUE (ministry, name)
);
CREATE TABLE grades (code TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE posts (
    id INTEGER PRIMARY KEY,
    department INTEGER NOT NULL REFERENCES departments (id),
    title TEXT NOT NULL,
    grade TEXT NOT NULL REFERENCES grades (code)
);
CREATE TABLE employees (
    id TEXT PRIMARY KEY,
    tin TEXT NOT NULL UNIQUE,
    family_name TEXT NOT NULL,
    given_names TEXT NOT NULL,
    birth_date TEXT NOT NULL,
    hired_on TEXT NOT NULL,
    post INTEGER NOT NULL REFERENCES posts (id),
    bank_account TEXT NOT NULL,
    home_address TEXT NOT NULL,
    health_notes TEXT NOT NULL
);
CREATE INDEX employees_by_post ON employees (post);
CREATE TABLE salaries (
    employee TEXT NOT NULL REFERENCES employees (id),
    valid_from TEXT NOT NULL,
    amount TEXT NOT NULL,
    currency TEXT NOT NULL,
    PRIMARY KEY (employee, valid_from)
);
CREATE TABLE payslips (
    id INTEGER PRIMARY KEY,
    exchange TEXT NOT NULL,
    employee TEXT NOT NULL REFERENCES employees (id),
    period TEXT NOT NULL,
    gross TEXT NOT NULL,
    income_tax TEXT NOT NULL,
    social_security_contribution TEXT NOT NULL,
    net TEXT NOT NULL,
    currency TEXT NOT NULL,
    recorded_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
);
CREATE INDEX payslips_by_employee ON payslips (employee, period);
CREATE INDEX payslips_by_exchange ON payslips (exchange);
"""
CONTENT = (
    "SELECT * FROM ministries ORDER BY code",
    "SELECT * FROM departments ORDER BY id",
    "SELECT * FROM grades ORDER BY code",
    "SELECT * FROM posts ORDER BY id",
    "SELECT * FROM employees ORDER BY id",
    "SELECT * FROM salaries ORDER BY employee, valid_from",
    "SELECT * FROM payslips ORDER BY id",
)


def build(path: Path, seed: int = SEED) -> None:
    """Write the database to ``path``, in place of what is there. Raises OSError or sqlite3.Error."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    with closing(sqlite3.connect(unfinished)) as database:
        database.executescript(SCHEMA)
        _fill(database, random.Random(seed))  # noqa: S311  (must be repeatable; nothing here is secret)
        database.commit()
        database.execute("PRAGMA journal_mode = WAL")
    for rest in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        rest.unlink(missing_ok=True)
    unfinished.rename(path)


def digest(path: Path) -> str:
    """SHA-256 over every row of every table in key order: equal digests mean equal content."""
    content = hashlib.sha256()
    with closing(sqlite3.connect(path)) as database:
        for query in CONTENT:
            for row in database.execute(query):
                content.update(repr((query, row)).encode())
    return content.hexdigest()


def payslips(path: Path, period: str, employee: str = "%") -> int:
    """Rows in the table of payslips for a month ("2026-09"), of one employee or of all."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        query = "SELECT count(*) FROM payslips WHERE period = ? AND employee LIKE ?"
        return int(database.execute(query, (period, employee)).fetchone()[0])


def payslips_of(path: Path, exchange: str) -> int:
    """Rows that were written for one exchange."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM payslips WHERE exchange = ?", (exchange,)).fetchone()[0])


def paid_twice(path: Path, period: str) -> int:
    """How many employees have more than one payslip for a month."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        several = "SELECT employee FROM payslips WHERE period = ? GROUP BY employee HAVING count(*) > 1"
        return len(database.execute(several, (period,)).fetchall())


def _fill(database: sqlite3.Connection, dice: random.Random) -> None:
    database.executemany("INSERT INTO ministries VALUES (?, ?)", [(code, name) for code, name, _ in names.MINISTRIES])
    database.executemany("INSERT INTO grades VALUES (?, ?)", [(code, name) for code, name, _ in names.GRADES])
    posts = _posts(database)
    people = list(_people(dice, posts))
    database.executemany("INSERT INTO employees VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", people)
    floor = {code: lowest for code, _, lowest in names.GRADES}
    grades = {post: grade for staffed in posts.values() for post, grade in staffed}
    database.executemany(
        "INSERT INTO salaries VALUES (?, ?, ?, ?)",
        [row for person in people for row in _salaries(dice, person[0], person[5], floor[grades[int(person[6])]])],
    )


def _posts(database: sqlite3.Connection) -> dict[str, list[tuple[int, str]]]:
    """Departments and their posts, with the posts' ids and grades by ministry."""
    staffed: dict[str, list[tuple[int, str]]] = {}
    department = post = 0
    for ministry, _, _ in names.MINISTRIES:
        staffed[ministry] = []
        for name in names.DEPARTMENTS:
            department += 1
            database.execute("INSERT INTO departments VALUES (?, ?, ?)", (department, ministry, name))
            for title, grade in names.POSTS:
                post += 1
                database.execute("INSERT INTO posts VALUES (?, ?, ?, ?)", (post, department, title, grade))
                staffed[ministry].append((post, grade))
    return staffed


def _people(dice: random.Random, posts: dict[str, list[tuple[int, str]]]) -> Iterator[tuple[str, ...]]:
    """Rows of employees; ids are dealt out at random so that a ministry's staff are not neighbours."""
    homes = [code for code, _, staff in names.MINISTRIES for _ in range(staff)]
    dice.shuffle(homes)
    for number, ministry in enumerate(homes, start=1):
        region = dice.randrange(len(names.GIVEN))
        middle = f" {dice.choice(names.GIVEN[region])}" if dice.random() < 0.25 else ""
        born = date(1962, 1, 1) + timedelta(days=dice.randrange(15_000))
        hired = born + timedelta(days=dice.randrange(7_300, 8_000))
        yield (
            f"E-{number:06}",
            f"TIN-{dice.randrange(10**9):09}-{number:04}",
            dice.choice(names.FAMILY[region]),
            dice.choice(names.GIVEN[region]) + middle,
            born.isoformat(),
            hired.isoformat(),
            str(dice.choice(posts[ministry])[0]),
            f"XX{dice.randrange(10, 98)}{dice.randrange(10**16):016}",
            f"{dice.randrange(1, 400)} {dice.choice(names.STREETS)}",
            dice.choices(names.HEALTH, weights=(60, 30, 3, 4, 3))[0],
        )


def _salaries(dice: random.Random, employee: str, hired: str, floor: int) -> Iterator[tuple[str, str, str, str]]:
    """The salary on hiring and, for some, one raise; the latest one that is in force counts."""
    cents = floor * 100 + dice.randrange(0, floor * 60, 50)
    yield employee, hired, _amount(cents), CURRENCY
    if dice.random() < 0.4:
        yield employee, "2025-01-01", _amount(cents + cents // 20), CURRENCY


def _amount(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"


if __name__ == "__main__":
    build(Path(sys.argv[1]))
