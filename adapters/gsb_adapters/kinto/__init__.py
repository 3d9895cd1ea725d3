"""Kinto (API 1) for its adapters: records that are created once, looked up and listed, and the pauses it asks for.

It knows no kind of record, and keeps nothing but the end of a pause. A crash in the middle of a creation means that it
may have been sent; whoever writes the exchange into the record recognises it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from gsb.sdk import Context, HttpReply
from gsb_adapters.rest import BasicSettings, Pause, member, members

UNTOUCHED = (409, 429)
"""Statuses of a transaction that was undone, since another made the same record at that moment, and of a request that
was not looked at."""


class KintoSettings(BasicSettings):
    """Base of the settings of an adapter for Kinto. The URL ends with the API's version, ``/v1``."""


class Kinto:
    """All calls of one adapter. A collection is named by its path, and ``refused`` says which statuses are the system's
    no, with the code of each."""

    def __init__(self, context: Context[Any, Any]) -> None:
        self._context = context
        self._settings: KintoSettings = context.settings
        self._pause = Pause(context.clock)

    async def create(
        self, collection: str, key: str, data: Any, *, refused: Mapping[int, str]
    ) -> tuple[dict[str, Any], bool]:
        """The record of this key, and whether it is new; one that was there stays as it is. It is one request, atomic
        in Kinto."""
        first = {"If-None-Match": "*"}
        answer = await self.ask("PUT", _record(collection, key), refused, json={"data": data}, headers=first)
        said, new = answer.json(), answer.status != 412
        return members(member(said, "data") if new else member(member(said, "details"), "existing")), new

    async def look_up(
        self, collection: str, key: str, refused: Mapping[int, str] | None = None
    ) -> dict[str, Any] | None:
        """The record of this key; None if there is none."""
        answer = await self.ask("GET", _record(collection, key), refused)
        return None if answer.status == 404 else members(member(answer.json(), "data"))

    async def page(self, collection: str, refused: Mapping[int, str] | None = None, **params: str | int) -> HttpReply:
        """The answer, whose ``data`` are the records for which these parameters ask."""
        return await self.ask("GET", f"{collection}/records", refused, params=params)

    async def ask(self, method: str, path: str, refused: Mapping[int, str] | None = None, **more: Any) -> HttpReply:
        """The answer, if it is a good one, says that there is no such record, or that there is one already."""
        self._pause.respect()
        headers = self._settings.signed_in() | more.pop("headers", {})
        answer = await self._context.http.request(method, self._settings.url + path, headers=headers, **more)
        self._pause.heed(answer, "Backoff")
        if answer.status in (200, 201, 412) or _absent(answer):
            return answer
        raise answer.error(refused, untouched=UNTOUCHED)


def _record(collection: str, key: str) -> str:
    return f"{collection}/records/{quote(key, safe='')}"


def _absent(answer: HttpReply) -> bool:
    """Whether it is the record that is missing. A missing collection is a mistake in the settings and says nothing of
    anybody: a whole people would seem unregistered."""
    return answer.status == 404 and member(member(answer.json(), "details"), "resource_name") == "record"
