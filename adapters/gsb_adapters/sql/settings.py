"""The settings of the adapter ``sql``, and what a statement in them must look like. No I/O."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pydantic import Field, ValidationInfo, field_validator, model_validator
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import ArgumentError, InvalidRequestError

from gsb.sdk import Effect, SecretFile, Settings, Shape

Code = Literal["not_found", "conflict", "invalid", "forbidden"]

_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/""", re.DOTALL)
_FOREIGN = re.compile(r"\?|%[s(]|\$[0-9]|[{}]")
_NAME = re.compile(r"(?<![:\w]):(\w+)(?!:)")
_BEGINS = {
    "read": ("select", "with", "values"),
    "write": ("insert", "update", "delete", "replace", "with", "merge", "call"),
}


class SqlSettings(Settings):
    """``[settings]`` of a system with the adapter ``sql``."""

    url: str
    """SQLAlchemy's URL of the database with an asynchronous driver and without a password, such as
    ``sqlite+aiosqlite:///personnel.sqlite``; a relative file starts at the deployment's folder."""
    password: SecretFile | None = None
    """File with the password of the URL's user, read when the node starts."""
    lock_wait: float = Field(default=2.0, ge=0, le=60)
    """SQLite only: seconds to wait for somebody else's transaction before trying again later."""

    @field_validator("url")
    @classmethod
    def _one_we_can_use(cls, value: str, info: ValidationInfo) -> str:
        try:
            url = make_url(value)
            asynchronous = url.get_dialect().is_async
        except (ArgumentError, InvalidRequestError, ImportError) as error:
            raise ValueError("not a database URL whose driver is installed") from error
        if not asynchronous:
            raise ValueError(f"the driver {url.drivername} is not asynchronous")
        if url.password is not None:
            raise ValueError("the URL holds a password; put it into a file and name that as password")
        if url.get_backend_name() != "sqlite":
            return value
        if not url.database or url.database == ":memory:":
            raise ValueError("the URL names no file")
        path = Path((info.context or {}).get("folder", Path())).resolve() / url.database
        return url.set(database=str(path)).render_as_string()

    def engine_url(self) -> URL:
        """The URL to connect to. SQLite opens a file that is there, and never makes an empty one instead."""
        url = make_url(self.url)
        if url.get_backend_name() == "sqlite":
            return url.set(database=f"file:{quote(url.database or '')}", query={"mode": "rw", "uri": "true"})
        return url if self.password is None else url.set(password=self.password.read())


class Statement(Settings):
    """``[settings]`` of a service whose system has the adapter ``sql``. Expressions are JMESPath; they see the exchange
    as ``body``, ``exchange``, ``agency``, ``service``, ``purpose``, ``sub`` and ``case``."""

    statement: str
    """One SQL statement. Values come in as named parameters, ``:name``, and in no other way."""
    mode: Literal["read", "write"] = "read"
    """A read is rolled back after its rows were read, a write is committed."""
    parameters: dict[str, Shape] = Field(default={})
    """Where the values of the named parameters come from: string, number, boolean or null."""
    reply: Shape
    """The reply. Here expressions also see ``rows`` (an array of objects, by column) and ``rowcount`` (how many rows a
    write touched). Decimals come as strings."""
    empty: Code | None = None
    """What it means to the caller when a read gives no row or a write touches none; none: an ordinary reply."""
    most_rows: int = Field(default=1_000, ge=1, le=100_000)
    """A result with more rows than this is an error."""
    find: str | None = None
    """For a write: one reading statement that finds its row again if it took effect, best by ``:exchange``. Without a
    row the answer is that nobody knows. It has the same parameters, and its reply is built like the statement's."""

    def fits(self, effect: Effect) -> None:
        # A service without effect may be performed any number of times, and without a key to recognise a repeat by.
        if self.mode == "write" and effect is Effect.NONE:
            raise ValueError("a write acts, but the service's effect is none")

    @model_validator(mode="after")
    def _statements_are_safe(self) -> Statement:
        names = check_statement(self.statement, self.mode)
        if self.find is not None:
            if self.mode == "read":
                raise ValueError("only a write has a find")
            names |= check_statement(self.find, "read")
        missing, unused = names - set(self.parameters), set(self.parameters) - names
        if missing:
            raise ValueError(f"the parameter :{min(missing)} has no value in parameters")
        if unused:
            raise ValueError(f"no statement uses the parameter {min(unused)}")
        return self


def check_statement(statement: str, mode: str) -> set[str]:
    """The names of its parameters. Raises ValueError with one clear sentence if it is not one safe statement."""
    bare = _QUOTED.sub(" ", statement).strip().removesuffix(";")
    if ";" in bare:
        raise ValueError("there is more than one statement")
    foreign = _FOREIGN.search(bare)
    if foreign is not None:
        raise ValueError(f"{foreign.group()} stands for a value; only named parameters, :name, do that here")
    if not bare.lower().startswith(_BEGINS[mode]):
        raise ValueError(f"a {mode} begins with {', '.join(_BEGINS[mode]).upper()}")
    names = set(_NAME.findall(bare))
    if names != parameter_names(statement):
        raise ValueError("a colon in a quoted text or comment must be written \\:")
    return names


def parameter_names(statement: str) -> set[str]:
    """What the database driver will want a value for."""
    return set(text(statement).compile().params)
