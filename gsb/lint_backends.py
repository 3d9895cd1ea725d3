"""What must hold of the tables that say what a node runs on: their files are there, and so is what they need.

It is part of ``gsb.lint`` and keeps to its rules. Nothing is connected to: a check says the same on a machine that
reaches no server. Secrets are read, never repeated.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from gsb.backends import PostgresTable
from gsb.config import Gsb
from gsb.dsn import DsnUnfit, read_dsn
from gsb.load import Finding, Tables
from gsb.material import shown
from gsb.store.seal import KeyFileUnfit, read_key

POSTGRES = find_spec("asyncpg") is not None
"""Whether the extra ``postgres`` is installed."""


def lint_backends(tables: Tables, gsb: Gsb) -> Iterator[Finding]:
    store = gsb.store
    if isinstance(store, PostgresTable):
        yield from _postgres(store)
    elif not store.path.parent.is_dir():
        yield Finding("gsb.toml", "store.path", f"there is no folder {shown(store.path.parent, tables.folder)}")
    try:
        read_key(store.key)
    except KeyFileUnfit as error:
        yield Finding("gsb.toml", "store.key", f"{error}; gsb keygen --store makes one")


def _postgres(table: PostgresTable) -> Iterator[Finding]:
    if not POSTGRES:
        yield Finding("gsb.toml", "store", "needs the extra: pip install 'gsb[postgres]'")
    try:
        read_dsn(table.dsn)
    except DsnUnfit as error:
        yield Finding("gsb.toml", "store.dsn", str(error))
