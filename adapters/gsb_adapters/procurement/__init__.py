"""Contracting processes in the open: releases of OCDS 1.1 are published in a Kinto collection, and compiled to records.

The record of Kinto in which a release lies bears the exchange's id and is only ever created, so publishing acts once
however often it is tried; a crash in the middle is settled by the next try. Nothing is kept here.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

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
from gsb_adapters.procurement import ocds

MOST_RELEASES = 1_000
"""Of one process; more are an error rather than a record that leaves some out."""


class ProcurementSettings(HttpSettings):
    """``[settings]`` of a system with the adapter ``procurement``; ``url`` is Kinto's, with its version."""

    user: str = Field(min_length=1, pattern=r"^[^:]+$")
    """Kinto's account of the bus, which may read the collection and create records in it."""
    password: SecretFile
    """File with the account's password."""
    collection: str = Field(pattern=r"^/buckets/[A-Za-z0-9_-]+/collections/[A-Za-z0-9_-]+$")
    """Path of the collection of releases below ``url``."""
    prefix: str = Field(pattern=r"^ocds-[a-z0-9]{6}$")
    """The publisher's registered prefix of ocids."""
    publisher: str = Field(min_length=1)
    """Name of the publisher, for packages."""
    uri: str = Field(pattern=r"^https?://[^?#\s]*[^/?#\s]$")
    """Address below which packages can be had by everybody; a package's own is this, a slash and its release's id."""
    currency: str = Field(pattern=r"^[A-Z]{3}$")
    """The currency (ISO 4217) in which amounts are published."""


class Procurement(Adapter[ProcurementSettings, NoSettings]):
    """``release`` publishes one, ``record`` compiles all of a process."""

    Settings = ProcurementSettings

    async def check(self) -> None:
        answer = await self._ask("GET", "")
        if answer.status != 200:
            raise Broken(f"status {answer.status}: there is no such collection, or not for this account")

    async def handle(self, request: Request) -> Reply:
        match request.service.split("/")[1]:
            case "release":
                return await self._publish(request)
            case "record":
                return await self._record(request.body)
            case other:
                raise Broken(f"there is no service {other}")

    async def find(self, request: Request) -> Reply | None:
        """The release of this exchange, if it was published."""
        if request.service.split("/")[1] != "release":
            return None
        package = self._package(request)
        answer = await self._ask("GET", f"/records/{request.exchange}")
        return _published(answer, package) if answer.status == 200 else None

    async def _publish(self, request: Request) -> Reply:
        package = self._package(request)
        content = {"data": {"ocid": package["releases"][0]["ocid"], "package": package}}
        path, first = f"/records/{request.exchange}", {"If-None-Match": "*"}
        answer = await self._ask("PUT", path, content=content, headers=first)
        if answer.status in (201, 412):
            return _published(answer, package)
        if answer.status == 400:
            raise Refused("not_accepted", answer.body.decode("utf-8", "replace")[:500])
        raise Broken(f"status {answer.status}")

    def _package(self, request: Request) -> dict[str, Any]:
        settings, body = self.context.settings, request.body
        if ocds.currencies(body) - {settings.currency}:
            raise Refused("currency_invalid")
        if ocds.ids_repeat(body):
            raise Refused("id_repeated")
        release = ocds.release(f"{settings.prefix}-{body['process']}", request.exchange, body)
        return ocds.package(f"{settings.uri}/{request.exchange}", settings.publisher, [release])

    async def _record(self, body: Mapping[str, Any]) -> Reply:
        asked: dict[str, str | int] = {
            "ocid": f"{self.context.settings.prefix}-{body['process']}",
            "_limit": MOST_RELEASES + 1,
        }
        answer = await self._ask("GET", "/records", params=asked)
        if answer.status != 200:
            raise Broken(f"status {answer.status}")
        try:
            packages = [each["package"] for each in answer.json()["data"] if each["ocid"] == asked["ocid"]]
            if not packages:
                raise Refused("not_found")
            if len(packages) > MOST_RELEASES:
                raise Broken(f"there are more than {MOST_RELEASES} releases")
            # Merging many releases takes longer than the event loop may be kept.
            record = await self.context.in_thread(ocds.told, packages, versioned=body.get("versioned", False))
        except (KeyError, TypeError, ValueError) as error:
            raise Broken(f"what is stored are no releases: {type(error).__name__}") from error
        return Reply(record, note=f"compiled of {len(packages)} releases")

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        content: Any = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str | int] | None = None,
    ) -> HttpReply:
        settings = self.context.settings
        try:
            pair = f"{settings.user}:{settings.password.read()}".encode()
        except (OSError, UnicodeError) as error:
            raise Unavailable("the secret's file cannot be read", sent=False) from error
        shown = {"Authorization": f"Basic {base64.b64encode(pair).decode()}"} | dict(headers or {})
        url = settings.url + settings.collection + path
        answer = await self.context.http.request(method, url, json=content, headers=shown, params=params)
        # A 409 is what Kinto says to one of two who create the same record at the same moment.
        if answer.status in (409, 429, 502, 503, 504):
            raise Unavailable(f"status {answer.status}", sent=True, after=answer.after())
        return answer


def _published(answer: HttpReply, package: Mapping[str, Any]) -> Reply:
    """The reply for what lies in the store. Raises ``Broken`` if that is not this release."""
    try:
        body = answer.json()
        # 412: it is there already, and Kinto shows it.
        stored = (body["details"]["existing"] if answer.status == 412 else body["data"])["package"]
        known, uri = stored["releases"] == package["releases"], str(stored["uri"])
    except (KeyError, TypeError) as error:
        raise Broken(f"status {answer.status}, and the answer does not say what is stored") from error
    if not known:
        raise Broken("another document lies in the store under this exchange")
    (release,) = package["releases"]
    told = {"ocid": release["ocid"], "release": release["id"], "date": release["date"], "tag": release["tag"]}
    return Reply(told | {"uri": uri}, note=f"published as {release['ocid']}")
