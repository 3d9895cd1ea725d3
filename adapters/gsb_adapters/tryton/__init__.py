"""Tryton's JSON-RPC: one session that all calls share, values as Tryton writes them, its errors as the bus has them.

A session is made when it is needed, and once more when Tryton does not know it any more. A password that Tryton refused
is not tried again before a growing pause, since it stalls whoever tries too often. It knows no service. Nothing is kept
over a restart; a crash in the middle of a call means that the call may have taken effect.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from pydantic import Field

from gsb.sdk import AdapterError, Broken, Context, Currency, HttpReply, HttpSettings, Refused, SecretFile, Unavailable

FIRST_PAUSE, LONGEST_PAUSE = 60.0, 3600.0
"""Seconds without another login after a refused one. Tryton counts the attempts of five minutes: each makes the next
answer slower, until the fifth locks the user out. Pauses that double from a minute on stay below that."""
BUSY = ("database is locked", "could not serialize access", "deadlock detected", "could not obtain lock")
"""In the text of an error: two transactions met, and this one was rolled back."""
NO_ACCESS = "You are not allowed to"
"""Begins the text of an error by which Tryton says that its administrator has to do something."""

Record = Mapping[str, Any]


class TrytonSettings(HttpSettings):
    """What it takes to reach a Tryton. ``url`` is its root."""

    database: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    """Name of its database."""
    user: str = Field(min_length=1)
    """Login name of the bus's own user there; its company is the one whose records are seen."""
    password: SecretFile
    """File with that user's password."""


class Warned(Refused):
    """Tryton asks a person whether to go on. Nothing took effect."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__("warned", text)
        self.name = name.rpartition(".")[2]
        """Which question it is, such as ``invoice_similar``."""


class Failed(Broken):
    """Tryton broke down over a call. That says nothing of what it was asked, and may be over soon."""


@contextmanager
def untouched() -> Iterator[None]:
    """Around what only looks: whatever becomes of Tryton there, nothing took effect, so it can be tried again."""
    try:
        yield
    except Unavailable as error:
        error.sent = False
        raise
    except Failed as error:
        raise Unavailable(error.detail, sent=False) from error


@dataclass(frozen=True, slots=True)
class Session:
    """One login, and what stays the same as long as it lasts."""

    authorization: str = field(repr=False)
    company: int
    currency_id: int
    currency: Currency
    """The company's."""

    @property
    def context(self) -> dict[str, Any]:
        """What goes along with each call: texts of errors do not depend on the user's preferences."""
        return {"company": self.company, "language": "en"}


class Client:
    """All calls of one adapter."""

    def __init__(self, context: Context[Any, Any]) -> None:
        self._context = context
        self._settings: TrytonSettings = context.settings
        self._session: Session | None = None
        self._login = asyncio.Lock()
        self._refused = ""
        """The password that Tryton did not take."""
        self._failures = 0
        self._pause_until = 0.0
        """By the steady clock."""

    async def call(self, method: str, *params: Any, **more: Any) -> Any:
        """The result of a method; ``more`` is added to its context. Raises ``Refused``, ``Unavailable``, ``Broken``."""
        session = await self.session()
        answer = await self._post(method, [*params, session.context | more], session.authorization)
        if answer.status == 401:  # Tryton did nothing: it forgot the session, or it is too old for this method
            session = await self.session(instead_of=session)
            answer = await self._post(method, [*params, session.context | more], session.authorization)
        return _result(answer)

    async def check(self) -> None:
        """Raises ``Unavailable`` or ``Broken`` if Tryton does not answer this user."""
        await self.call("model.res.user.get_preferences", True)

    async def read(
        self,
        model: str,
        domain: Sequence[Any],
        fields: Sequence[str],
        *,
        order: str = "id",
        limit: int | None = None,
    ) -> list[Record]:
        """Records with these fields; ``party.code`` becomes the member ``code`` of ``party``."""
        found = await self.call(f"model.{model}.search_read", domain, 0, limit, [[order, "ASC"]], list(fields))
        names = {"id", *(field.partition(".")[0] for field in fields)}
        if not isinstance(found, list) or not all(isinstance(each, dict) and names <= each.keys() for each in found):
            raise Broken(f"a search for {model} brings something else than its records")
        return found

    async def session(self, instead_of: Session | None = None) -> Session:
        """The present one, or a new one if there is none but ``instead_of``. Logins go one at a time."""
        if self._session is not None and self._session is not instead_of:
            return self._session
        async with self._login:
            if self._session is None or self._session is instead_of:
                self._session = None
                self._session = await self._begin()
            return self._session

    async def _begin(self) -> Session:
        password = self._settings.password.read()
        left = self._pause_until - self._context.clock.steady()
        if left > 0 and password == self._refused:
            raise Unavailable("the password was refused and is not tried again yet", sent=False, after=left)
        answer = await self._post("common.db.login", [self._settings.user, {"password": password}])
        if answer.status == 401 or (answer.status == 429 and answer.after() is None):
            raise self._not_taken(password)
        if answer.status == 404:
            raise Unavailable("there is no such database, or it cannot be reached", sent=True)
        match _result(answer):
            case [int(number), str(token)]:
                self._failures, self._refused = 0, ""
            case _:
                raise Broken("a login brings no session")
        text = f"{self._settings.user}:{number}:{token}"
        return await self._company(f"Session {base64.b64encode(text.encode()).decode()}")

    def _not_taken(self, password: str) -> Unavailable:
        """Remember it, so that nobody tries this password again soon. Nothing of a request was sent."""
        pause = min(FIRST_PAUSE * 2**self._failures, LONGEST_PAUSE)
        self._failures += 1
        self._refused, self._pause_until = password, self._context.clock.steady() + pause
        self._context.log.warning("the password was refused", extra={"facts": {"next_try_in": pause}})
        return Unavailable("the password was refused", sent=False, after=pause)

    async def _company(self, authorization: str) -> Session:
        """In whose books the user works, and in which currency they are kept."""
        preferences = _result(await self._post("model.res.user.get_preferences", [True, {}], authorization))
        company = preferences.get("company") if isinstance(preferences, dict) else None
        fields = ["currency.code", "currency.digits"]
        if not isinstance(company, int):
            raise Broken("the user has no company")
        match _result(await self._post("model.company.company.read", [[company], fields, {}], authorization)):
            case [{"currency": {"id": int(identity), "code": str(code), "digits": int(places)}}]:
                return Session(authorization, company, identity, Currency(code, places))
        raise Broken("the company has no currency")

    async def _post(self, method: str, params: list[Any], authorization: str | None = None) -> HttpReply:
        settings = self._settings
        headers = {} if authorization is None else {"Authorization": authorization}
        content = {"id": 0, "method": method, "params": _written(params)}
        return await self._context.http.request(
            "POST", f"{settings.url}/{settings.database}/", json=content, headers=headers
        )


def _result(answer: HttpReply) -> Any:
    """What a method returned. Raises ``Refused`` (``rejected``, or ``Warned``), ``Unavailable`` and ``Broken``."""
    if answer.status != 200:
        error = answer.error()
        raise Failed(error.detail) if answer.status >= 500 and isinstance(error, Broken) else error
    match answer.json():
        case {"error": error}:  # with status 200
            raise _error(error)
        case {"result": result}:
            return _understood(result)
    raise Broken("the answer is neither a result nor an error")


def _error(error: Any) -> AdapterError:
    match error:
        case ["UserWarning", [str(name), str(text), *_]]:
            return Warned(name, text)
        case ["UserError", [str(text), *_]] if not text.startswith(NO_ACCESS):
            return Refused("rejected", text)
        case ["ConcurrencyException", *_]:
            return Unavailable("the record was changed meanwhile", sent=True)
        case [str(text), *_] if any(busy in text for busy in BUSY):
            return Unavailable(text, sent=True)
    # Such as a field or a model that this Tryton does not have, whose bare name is all that it says.
    return Broken(f"Tryton answers with the error {str(error)[:500]}")


def _written(value: Any) -> Any:
    """Values as Tryton's JSON has them. A float for an amount would be taken without a word, so none goes out."""
    match value:
        case Decimal():
            return {"__class__": "Decimal", "decimal": str(value)}
        case dt.date():
            return {"__class__": "date", "year": value.year, "month": value.month, "day": value.day}
        case dict():
            return {name: _written(each) for name, each in value.items()}
        case list() | tuple():
            return [_written(each) for each in value]
        case float():
            raise TypeError("an amount must not be a float")
    return value


def _understood(value: Any) -> Any:
    """The same back; a date becomes its text. Raises ``Broken``."""
    match value:
        case {"__class__": "Decimal", "decimal": str(text)}:
            try:
                return Decimal(text)
            except InvalidOperation as error:
                raise Broken("a decimal is not a number") from error
        case {"__class__": "date", "year": int(year), "month": int(month), "day": int(day)}:
            return f"{year:04}-{month:02}-{day:02}"
        case dict():
            return {name.removesuffix("."): _understood(each) for name, each in value.items()}
        case list():
            return [_understood(each) for each in value]
    return value
