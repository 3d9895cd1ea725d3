"""Civil and business registers in Kinto: look-up, registration, feed of changes, claimed identities.

Every exchange is one request. A crash in the middle of a registration means that it may have been sent; the record
names its exchange, so a repeat recognises it. What speaks with Kinto is shared by its adapters.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from gsb.sdk import Adapter, Broken, Context, NoSettings, Refused, Reply, Request
from gsb_adapters.kinto import Kinto, KintoSettings
from gsb_adapters.rest import items, member, said_at

COLLECTION = r"^[A-Za-z0-9_-]+/[A-Za-z0-9_-]+$"
BUSINESS = ("brn", "name", "status", "tin", "registered_on")
PERSON = ("given_name", "family_name", "birth_date")
REFUSED = {400: "invalid"}
AHEAD = 60_000
"""Milliseconds by which the newest change may be ahead of the register's clock."""


class RegistrySettings(KintoSettings):
    """``[settings]`` of a system with the adapter ``registry``. The URL ends with the API's version, ``/v1``."""

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

    def __init__(self, context: Context[RegistrySettings, NoSettings]) -> None:
        super().__init__(context)
        self._kinto = Kinto(context)
        self._businesses, self._persons = map(_path, (context.settings.businesses, context.settings.persons))

    async def check(self) -> None:
        await self._kinto.page(self._businesses, _limit=1)

    async def handle(self, request: Request) -> Reply:
        body = request.body
        match request.service.split("/")[1]:
            case "business":
                record = await self._kinto.look_up(self._businesses, body["brn"], REFUSED)
                if record is None:
                    raise Refused("not_found")
                return Reply(_business(record))
            case "register-business":
                return await self._register(request)
            case "changes":
                return await self._changes(body.get("since", "0"), int(body.get("limit", 100)))
            case "identity":
                return await self._identity(body)
            case other:
                raise Broken(f"there is no service {other}")

    async def find(self, request: Request) -> Reply | None:
        record = await self._kinto.look_up(self._businesses, request.body["brn"], REFUSED)
        return _registration(record) if record is not None and record.get("exchange") == request.exchange else None

    async def _register(self, request: Request) -> Reply:
        today = datetime.fromtimestamp(self.context.clock.now(), UTC).date().isoformat()
        entry = {**request.body, "status": "ACTIVE", "registered_on": today, "exchange": request.exchange}
        record, new = await self._kinto.create(self._businesses, entry["brn"], entry, refused=REFUSED)
        if record.get("brn") == request.body["brn"] and record.get("exchange") == request.exchange:
            return _registration(record)
        if new:
            raise Broken("the register has kept something else than it was sent")
        raise Refused("already_registered")

    async def _changes(self, since: str, limit: int) -> Reply:
        if not since.isdecimal():
            raise Refused("cursor_unknown")
        refused = REFUSED | {400: "cursor_unknown"}
        answer = await self._kinto.page(self._businesses, refused, _since=since, _sort="last_modified", _limit=limit)
        newest, now = _milliseconds(answer.headers.get("ETag", "").strip('"')), said_at(answer).timestamp() * 1000
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
        person = await self._kinto.look_up(self._persons, claimed["national_id"], REFUSED)
        if person is None:
            return Reply({"registered": False, "alive": False, "matches": False})
        matches = all(_plain(member(person, name)) == _plain(claimed[name]) for name in PERSON)
        return Reply({"registered": True, "alive": "died_on" not in person, "matches": matches})


def _path(collection: str) -> str:
    bucket, name = collection.split("/")
    return f"/buckets/{bucket}/collections/{name}"


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
