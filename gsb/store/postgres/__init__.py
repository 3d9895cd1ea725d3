"""The store on PostgreSQL: any number of processes, on any number of machines, share one database."""

from gsb.store.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
