"""Which files a deployment consists of besides its store and its log: its folder, and what it names outside of it.

Secrets are among them: without its keys a store is unreadable and a bus nobody's, and what seals a backup is made for
them. Files outside have no names in a backup but numbers, and their places are listed apart. It only reads; a crash
means nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel

from gsb.backends import PostgresTable, SqliteTable
from gsb.config import Gsb, Service, System
from gsb.load import Tables, files

OF_A_DSN = ("sslrootcert", "sslcert", "sslkey", "passfile")
"""What names files in the connection URI of a PostgreSQL."""


def inside(folder: Path, gsb: Gsb) -> Iterator[str]:
    """Every file in the folder but the store's and the log's, and hidden ones, by its path in it."""
    apart = _apart(gsb)
    for name in files(folder, ""):
        if not any((folder / name).is_relative_to(each) for each in apart):
            yield name


def outside(tables: Tables, gsb: Gsb) -> list[str]:
    """The places of the files outside of the folder that it names: absolute, or relative to it (``../bus.jwk``)."""
    apart = _apart(gsb)
    named = {path for path in (*_named(tables, gsb), *_of_schemas(gsb)) if _is_file(path)}
    placed = {_place(tables.folder, path) for path in named if _plain(path) not in apart}
    return sorted(place for place in placed if place is not None)


def held(root: Path, places: Sequence[str], path: Path) -> Path:
    """Where a file that a table of an unpacked backup names lies in ``root``."""
    folder = root / "deployment"
    for number, place in enumerate(places):
        if _plain(folder / place) == _plain(path):
            return root / "outside" / str(number)
    return path


def _plain(path: Path) -> Path:
    """Without ``..``, and without following links: two ways to write one path are the same."""
    return Path(os.path.normpath(path))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False  # a text that can be no path


def _apart(gsb: Gsb) -> list[Path]:
    """What is backed up otherwise, or not at all."""
    apart = [_plain(gsb.log.path)]
    if gsb.bus.hsm is not None:
        apart.append(_plain(gsb.bus.hsm.module))  # a program of the machine's
    if isinstance(gsb.store, SqliteTable):
        path = _plain(gsb.store.path)
        apart += [path, *(path.with_name(path.name + end) for end in ("-wal", "-shm", ".lock", ".moved"))]
    return apart


def _place(folder: Path, path: Path) -> str | None:
    """None for what lies in the folder."""
    if _plain(path).is_relative_to(folder):
        return None
    # As it is written: a folder beside the deployment moves with it, an absolute path does not.
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _named(tables: Tables, gsb: Gsb) -> Iterator[Path]:
    for table in (gsb, *tables.agencies.values(), *tables.operators.values()):
        yield from _paths(table)
    settled: list[System | Service] = [*tables.systems.values(), *tables.services.values()]
    for each in settled:
        yield from _paths(each)
        # What a setting means only its adapter knows; a text that leads to a file is taken to name it.
        yield from (tables.folder / text for text in _texts(each.settings))
    if isinstance(gsb.store, PostgresTable):
        asked = parse_qs(urlsplit(gsb.store.dsn.read_text("utf-8").strip()).query)
        yield from (Path(path) for name in OF_A_DSN for path in asked.get(name, []))


def _of_schemas(gsb: Gsb) -> Iterator[Path]:
    return (gsb.schemas / name for name in files(gsb.schemas, ".json"))


def _paths(value: object) -> Iterator[Path]:
    """Every path in a table."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, BaseModel):
        yield from (path for name in type(value).model_fields for path in _paths(getattr(value, name)))
    elif isinstance(value, (list, tuple)):
        yield from (path for each in value for path in _paths(each))


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [text for each in value for text in _texts(each)] if isinstance(value, list) else []
