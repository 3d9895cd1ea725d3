"""A store with very many exchanges, quickly: their rows as the store itself lays them out, and nothing beside them.

Forty agencies and sixty services, some used a hundred times as much as others; nearly all exchanges are done, some
ended otherwise, few stand still or run. Two parties that are both much used have hardly met. Writing is not durable
while it lasts: a crash leaves a file that is worth nothing.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import SystemRandom
from typing import NamedTuple

from gsb.model import Effect, State, Took, new_id
from gsb.store.contract import DAY, Business
from gsb.store.seal import Seal
from gsb.store.sqlite import rows
from gsb.store.standing import Row

AGENCIES = [f"agency-{number:02}" for number in range(40)]
SERVICES = [f"system-{number % 12}/service-{number:02}/v1" for number in range(60)]
STRANGERS = AGENCIES[0], SERVICES[0]
"""Both much used, and together only once in fifty thousand."""
PEOPLE = 100_000
DAYS = 30
RARE_CODE = "closed_by_operator"
_PIECE = 20_000


class Ending(NamedTuple):
    """How many exchanges of a hundred thousand stand so."""

    share: int
    state: State
    code: str | None
    status: int
    took: Took


ENDINGS = (
    Ending(92_990, State.DONE, None, 200, "done"),
    Ending(4_000, State.REFUSED, "system_refused", 422, "none"),
    Ending(1_000, State.FAILED, "reply_invalid", 502, "none"),
    Ending(5, State.FAILED, RARE_CODE, 502, "none"),
    Ending(1_000, State.EXPIRED, "exchange_expired", 504, "none"),
)
STANDING = ((600, State.WAITING), (300, State.HELD), (100, State.UNKNOWN), (5, State.RUNNING))
"""Of a hundred thousand, those without an ending."""


def fill(path: Path, seal: Seal, count: int) -> None:
    """Write ``count`` exchanges of the last thirty days into a store that was made and is closed."""
    db = rows.connect(path, writes=True)
    try:
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-262144"):
            db.execute(f"PRAGMA {pragma}")
        made = _exchanges(seal, count)
        while some := list(islice(made, _PIECE)):
            _write(db, some)
        db.execute("PRAGMA journal_mode=WAL")
    finally:
        db.close()


def _write(db: sqlite3.Connection, some: list[Row]) -> None:
    db.execute("BEGIN")
    rows.insert_exchanges(db, some)
    db.execute("COMMIT")


def _exchanges(seal: Seal, count: int) -> Iterator[Row]:
    chance = SystemRandom()
    step, now = DAYS * DAY / count, time.time()
    agencies = chance.choices(AGENCIES, [100 / (1 + each) for each in range(len(AGENCIES))], k=count)
    services = chance.choices(SERVICES, [100 / (1 + each) for each in range(len(SERVICES))], k=count)
    kinds: list[Ending | State] = [*ENDINGS, *(state for _, state in STANDING)]
    weights = [ending.share for ending in ENDINGS] + [share for share, _ in STANDING]
    standing = chance.choices(kinds, weights, k=count)
    for number, (agency, drawn, kind) in enumerate(zip(agencies, services, standing, strict=True)):
        strangers = (agency, drawn) == STRANGERS and number % 2_500 != 0
        service = SERVICES[1] if strangers else drawn
        at = now - (count - number) * step
        person = Business(f"E-{chance.randrange(PEOPLE)}", personal=True)
        yield _row(number + 1, agency, service, at, seal.business(service, person), kind)


def _row(number: int, agency: str, service: str, at: float, business: str | bytes, kind: Ending | State) -> Row:
    row = Row(
        number, new_id(at), agency, service, Effect.NONE, "payroll", "agreement-1", b"f" * 32, at, business,
        None, number, None, State.DONE, at + 3_600, None, 1,
    )  # fmt: skip
    if isinstance(kind, Ending):
        row.state, row.code, row.status, row.took = kind.state, kind.code, kind.status, kind.took
        row.began_at, row.finished_at, row.reply = at + 0.1, at + 0.3, number
    else:
        row.state, row.reason = kind, "system_unavailable"
        row.due_at = None if kind is State.HELD else at + DAYS * DAY + 3_600
    return row
