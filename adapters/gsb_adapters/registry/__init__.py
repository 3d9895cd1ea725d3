"""Civil and business registers in Kinto (API 1): look-up, registration, feed of changes, claimed identities.

Every exchange is one request. It keeps nothing but the end of a pause that the register asked for. A crash in the
middle of a registration means that it may have been sent; the record names its exchange, so a repeat recognises it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from pydantic import Field

from gsb.sdk import (
    Adapter,
    Broken,
    HttpReply,
    HttpSettings,
    NoSettings,
    Refused,
    Reply,
    Request,
    SecretFile,
    Unavailable,
)
from gsb_adapters.rest import basic, items, member, members

COLLECTION = r"^[A-Za-z0-9_-]+/[A-Za-z0-9_-]+$"
LONGEST_PAUSE = 300.0
"""Seconds of a pause that are believed: one answer with a mistake in it must not shut the register out for good."""
BUSINESS = ("brn", "name", "status", "tin", "registered_on")
PERSON = ("given_name", "family_name", "birth_date")
REFUSED = {400: "invalid", 403: "forbidden"}
AHEAD = 60_000
"""Milliseconds by which the newest change may be ahead of the register's clock."""
UNTOUCHED = (409, 429)
"""Statuses of a transaction that was undone, and of a request that was not looked at."""


class RegistrySettings(HttpSettings):
    """``[settings]`` of a system with the adapter ``registry``. The URL ends with the API's version, ``/v1``."""

    user: str = Field(min_length=1, pattern=r"^[^:]+$")
    """Account of the bus in the register."""
    password: SecretFile
    """File with the account's password."""
    businesses: str = Field(default="registry/businesses", pattern=COLLECTION)
    """Bucket and collection of businesses."""
    persons: str = Field(default="registry/persons", pattern=COLLECTION)
    """Bucket and collection of the civil register."""
    settle: int = Field(default=10, ge=0, le=300)
    """Seconds by which the feed of changes lags: longer than any write to the register takes. Kinto gives a change its
    place before it commits it, so a younger one may still come before what is already seen."""


class Registry(Adapter[RegistrySettings, NoSettings]):
    """``business``, ``register-business``, ``changes`` and ``identity``."""

    Settings = RegistrySettings

    _paused_until = 0.0
    """By the steady clock."""

    async def check(self) -> None:
        await self._ask("GET", _records(self.context.settings.businesses), params={"_limit": 1})

    async def handle(self, request: Request) -> Reply:
        body = request.body
        match request.service.split("/")[1]:
            case "business":
                record = await self._look_up(self.context.settings.businesses, body["brn"])
                if record is None:
                    raise Refused("not_found")
                return Reply(_business(record))
            case "register-business":
                return await self._register(request)
            case "changes":
                return await self._changes(body.get("since", "0"), body.get("limit", 100))
            case "identity":
                return await self._identity(body)
            case other:
                raise Broken(f"there is no service {other}")

    async def find(self, request: Request) -> Reply | None:
        record = await self._look_up(self.context.settings.businesses, request.body["brn"])
        return _registration(record) if record is not None and record.get("exchange") == request.exchange else None

    async def _register(self, request: Request) -> Reply:
        """One request, atomic in the register: it makes the record, or says which one is there."""
        today = datetime.fromtimestamp(self.context.clock.now(), UTC).date().isoformat()
        entry = {**request.body, "status": "ACTIVE", "registered_on": today, "exchange": request.exchange}
        path = f"{_records(self.context.settings.businesses)}/{quote(request.body['brn'], safe='')}"
        answer = await self._ask("PUT", path, json={"data": entry}, headers={"If-None-Match": "*"})
        said = answer.json()
        record = members(member(member(said, "details"), "existing") if answer.status == 412 else member(said, "data"))
        if record.get("brn") == request.body["brn"] and record.get("exchange") == request.exchange:
            return _registration(record)
        if answer.status == 412:
            raise Refused("already_registered")
        raise Broken("the register has kept something else than it was sent")

    async def _changes(self, since: str, limit: int) -> Reply:
        if not since.isdecimal():
            raise Refused("cursor_unknown")
        page = {"_since": since, "_sort": "last_modified", "_limit": limit}
        try:
            answer = await self._ask("GET", _records(self.context.settings.businesses), params=page)
        except Refused as error:
            raise Refused("cursor_unknown" if error.code == "invalid" else error.code, error.detail) from error
        newest, now = _milliseconds(answer.headers.get("ETag", "").strip('"')), _now(answer)
        if newest > now + AHEAD:
            raise Broken("a change is dated in the future, and all that come after it")
        # A register that was set back to an earlier state has forgotten what came after it, removals too.
        if int(since) > newest:
            raise Refused("cursor_unknown")
        seen, horizon = items(answer.json(), "data"), now - self.context.settings.settle * 1000
        settled = [each for each in seen if _milliseconds(member(each, "last_modified")) <= horizon]
        return Reply(
            {
                "changes": [_change(each) for each in settled],
                "next": str(settled[-1]["last_modified"]) if settled else since,
                "more": len(settled) == len(seen) and "Next-Page" in answer.headers,
            }
        )

    async def _identity(self, claimed: Mapping[str, str]) -> Reply:
        person = await self._look_up(self.context.settings.persons, claimed["national_id"])
        if person is None:
            return Reply({"registered": False, "alive": False, "matches": False})
        matches = all(_plain(member(person, name)) == _plain(claimed[name]) for name in PERSON)
        return Reply({"registered": True, "alive": "died_on" not in person, "matches": matches})

    async def _look_up(self, collection: str, key: str) -> dict[str, Any] | None:
        answer = await self._ask("GET", f"{_records(collection)}/{quote(key, safe='')}")
        return None if answer.status == 404 else members(member(answer.json(), "data"))

    async def _ask(self, method: str, path: str, **more: Any) -> HttpReply:
        """The answer, if it is a good one, says that there is no such record, or that there is one already."""
        settings, clock = self.context.settings, self.context.clock
        left = self._paused_until - clock.steady()
        if left > 0:
            raise Unavailable("the register asked for a pause", sent=False, after=left)
        headers = basic(settings.user, settings.password) | more.pop("headers", {})
        answer = await self.context.http.request(method, settings.url + path, headers=headers, **more)
        pause = min(answer.after("Backoff") or 0.0, LONGEST_PAUSE)
        self._paused_until = max(self._paused_until, clock.steady() + pause)
        if answer.status in (200, 201, 412) or _absent(answer):
            return answer
        raise _error(answer)


def _records(collection: str) -> str:
    bucket, name = collection.split("/")
    return f"/buckets/{bucket}/collections/{name}/records"


def _absent(answer: HttpReply) -> bool:
    """Whether it is the record that is missing. A missing collection is a mistake in the settings and says nothing of
    anybody: a whole people would seem unregistered."""
    return answer.status == 404 and member(member(answer.json(), "details"), "resource_name") == "record"


def _error(answer: HttpReply) -> Exception:
    """What another status means. 401 speaks of the bus's own password, so it is no refusal of what was asked."""
    detail = f"status {answer.status}: {answer.body[:500].decode('utf-8', 'replace')}"
    if answer.status in REFUSED:
        return Refused(REFUSED[answer.status], detail)
    if answer.status in (*UNTOUCHED, 502, 503, 504):
        return Unavailable(detail, sent=answer.status not in UNTOUCHED, after=answer.after())
    return Broken(detail)


def _now(answer: HttpReply) -> float:
    """The register's own clock, in milliseconds. Raises ``Broken``."""
    try:
        return parsedate_to_datetime(answer.headers.get("Date", "")).timestamp() * 1000
    except ValueError as error:
        raise Broken("the answer does not say when it was given") from error


def _milliseconds(value: Any) -> int:
    """A time as Kinto writes it. Raises ``Broken`` for anything else."""
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise Broken("the answer has no time of change") from error


def _registration(record: Mapping[str, Any]) -> Reply:
    return Reply({name: member(record, name) for name in ("brn", "registered_on")})


def _business(record: Any) -> dict[str, Any]:
    member(record, "brn")
    return {name: record[name] for name in BUSINESS if name in record}


def _change(record: Any) -> dict[str, Any]:
    """One line of the feed. Of a record that is gone Kinto keeps its id and when it went."""
    when = datetime.fromtimestamp(_milliseconds(record["last_modified"]) / 1000, UTC)
    line = {"brn": member(record, "id"), "at": when.isoformat(timespec="milliseconds").replace("+00:00", "Z")}
    if record.get("deleted"):
        return {**line, "change": "removed"}
    return {**line, "change": "set", "business": _business(record)}


def _plain(text: Any) -> str:
    """A name or date as it is compared: composition of letters, case and spacing do not tell people apart."""
    return " ".join(unicodedata.normalize("NFKC", str(text)).casefold().split())
