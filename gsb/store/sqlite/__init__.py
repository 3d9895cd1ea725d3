"""The store on SQLite: one process, one file, no server."""

from gsb.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
