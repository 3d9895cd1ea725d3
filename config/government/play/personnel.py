"""Invents the civil servants of a ministry, and builds the personnel database that stands behind the system ``hrmis``.

Always the same for the same number of people. One in twenty is a ghost: on the payroll, but unknown to the civil
registry, dead, or another person there. The database is a human-resources system's own, in SQLite or in PostgreSQL; it
knows nothing of the bus. A crash half-way leaves no file of that name.

    python config/government/play/personnel.py var/systems/hrmis/personnel.sqlite 200
"""

from __future__ import annotations

import hashlib
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).parents[3]))  # so that it also runs as a plain file

from config.demo import names

MINISTRY = "MOE"
"""The one whose payroll is run."""
CURRENCY = "XOF"
EVERY = 20
"""One person in so many is a ghost."""
Ghost = Literal["unregistered", "dead", "mismatch"]
GHOSTS: tuple[Ghost, ...] = ("unregistered", "dead", "mismatch")
"""Why somebody is one; they take turns."""

SCHEMA = """
CREATE TABLE ministries (code TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE departments (
    id INTEGER PRIMARY KEY,
    ministry TEXT NOT NULL REFERENCES ministries (code),
    name TEXT NOT NULL,
    UNIQUE (ministry, name)
);
CREATE TABLE posts (
    id INTEGER PRIMARY KEY,
    department INTEGER NOT NULL REFERENCES departments (id),
    title TEXT NOT NULL,
    grade TEXT NOT NULL,
    established INTEGER NOT NULL
);
CREATE TABLE employees (
    id TEXT PRIMARY KEY,
    national_id TEXT NOT NULL UNIQUE,
    tin TEXT NOT NULL UNIQUE,
    family_name TEXT NOT NULL,
    given_names TEXT NOT NULL,
    birth_date DATE NOT NULL,
    hired_on DATE NOT NULL,
    post INTEGER NOT NULL REFERENCES posts (id),
    bank_account TEXT NOT NULL,
    home_address TEXT NOT NULL,
    health_notes TEXT NOT NULL
);
CREATE INDEX employees_by_post ON employees (post);
CREATE TABLE salaries (
    employee TEXT NOT NULL REFERENCES employees (id),
    valid_from DATE NOT NULL,
    amount MONEY NOT NULL,
    currency TEXT NOT NULL,
    PRIMARY KEY (employee, valid_from)
);
"""
MONEY = {"sqlite": "TEXT", "postgresql": "NUMERIC(15, 2)"}
"""Exact amounts: SQLite has no decimals, so they are text there."""
INSERTS = (
    "INSERT INTO ministries VALUES (?, ?)",
    "INSERT INTO departments VALUES (?, ?, ?)",
    "INSERT INTO posts VALUES (?, ?, ?, ?, ?)",
    "INSERT INTO employees VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "INSERT INTO salaries VALUES (?, ?, ?, ?)",
)
"""One for each table; ``rows`` has what goes in."""
Row = tuple[str | int | date | Decimal, ...]


@dataclass(frozen=True, slots=True)
class Person:
    """One civil servant, as the personnel system has them."""

    employee: str
    national_id: str
    tin: str
    family: str
    given: str
    birth_date: date
    hired_on: date
    post: int
    bank_account: str
    salary: Decimal
    """Gross, of a month."""
    ghost: Ghost | None
    """Why the civil registry would not confirm this person; None for one whom it does."""


def people(count: int) -> list[Person]:
    """The staff of the ministry."""
    return [_person(number) for number in range(1, count + 1)]


def _person(number: int) -> Person:
    def pick(what: str, size: int) -> int:
        """As good as chance, and the same for this person whenever it is asked."""
        return int.from_bytes(hashlib.sha256(f"{what} {number}".encode()).digest()[:8]) % size

    region = pick("region", len(names.GIVEN))
    born = date(1962, 1, 1) + timedelta(days=pick("birth", 15_000))
    post = pick("post", len(names.DEPARTMENTS) * len(names.POSTS))
    floor = {grade: lowest for grade, _, lowest in names.GRADES}[names.POSTS[post % len(names.POSTS)][1]]
    return Person(
        employee=f"E-{number:06}",
        national_id=f"NID-{number:07}",
        tin=f"TIN-{number:07}",
        family=names.FAMILY[region][pick("family", 10)],
        given=names.GIVEN[region][pick("given", 10)],
        birth_date=born,
        hired_on=born + timedelta(days=7_300 + pick("hired", 700)),
        post=post + 1,
        bank_account=iban(f"SN0100{number:018}"),
        salary=Decimal(100 * floor + pick("salary", 100 * floor)).scaleb(-2),
        ghost=None if number % EVERY else GHOSTS[number // EVERY % len(GHOSTS)],
    )


def iban(account: str, country: str = "SN") -> str:
    """The account's number with its check digits (ISO 13616)."""
    digits = "".join(str(int(each, 36)) for each in f"{account}{country}00")
    return f"{country}{98 - int(digits) % 97:02}{account}"


def rows(staff: Sequence[Person]) -> tuple[Sequence[Row], ...]:
    """What goes into each table, in the order of ``INSERTS``."""
    jobs = [(department, post) for department in range(len(names.DEPARTMENTS)) for post in names.POSTS]
    return (
        [(code, name) for code, name, _ in names.MINISTRIES],
        [(number, MINISTRY, name) for number, name in enumerate(names.DEPARTMENTS, start=1)],
        [(number, department + 1, *job, len(staff)) for number, (department, job) in enumerate(jobs, start=1)],
        [_employee(each) for each in staff],
        [row for each in staff for row in _salaries(each)],
    )


def _employee(person: Person) -> Row:
    known = (person.employee, person.national_id, person.tin, person.family, person.given)
    dates = (person.birth_date, person.hired_on)
    return (*known, *dates, person.post, person.bank_account, names.STREETS[0], names.HEALTH[0])


def _salaries(person: Person) -> Iterator[Row]:
    """The salary on hiring, and the one that is in force now."""
    yield person.employee, person.hired_on, Decimal("1.00"), CURRENCY
    yield person.employee, date(2025, 1, 1), person.salary, CURRENCY


def civil_register(staff: Sequence[Person]) -> Iterator[Mapping[str, str]]:
    """What the civil registry holds of them, in which ghosts have no part or another one."""
    for person in staff:
        if person.ghost == "unregistered":
            continue
        family = names.FAMILY[0][0] * 2 if person.ghost == "mismatch" else person.family
        record = {"national_id": person.national_id, "given_name": person.given, "family_name": family}
        record["birth_date"] = person.birth_date.isoformat()
        yield record | ({"died_on": "2024-02-29"} if person.ghost == "dead" else {})


def build(path: Path, staff: Sequence[Person]) -> None:
    """Write the database to ``path``, in place of what is there. Raises OSError or sqlite3.Error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    with closing(sqlite3.connect(unfinished)) as database:
        database.executescript(SCHEMA.replace("MONEY", MONEY["sqlite"]))
        for statement, content in zip(INSERTS, rows(staff), strict=True):
            database.executemany(statement, ([_plain(value) for value in row] for row in content))
        database.commit()
        database.execute("PRAGMA journal_mode = WAL")
    for rest in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        rest.unlink(missing_ok=True)
    unfinished.rename(path)


def _plain(value: str | int | date | Decimal) -> str | int:
    return value if isinstance(value, int) else str(value)


if __name__ == "__main__":
    build(Path(sys.argv[1]), people(int(sys.argv[2])))
