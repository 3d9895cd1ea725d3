"""Contracting processes in the open: releases of OCDS 1.1 are published in a Kinto collection, and compiled to records.

The record of Kinto in which a release lies bears the exchange's id and is only ever created, so publishing acts once
however often it is tried; a crash in the middle is settled by the next try. Nothing is kept here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from gsb.sdk import Adapter, Broken, Context, NoSettings, Refused, Reply, Request
from gsb_adapters.kinto import Kinto, KintoSettings
from gsb_adapters.procurement import ocds
from gsb_adapters.rest import items, member, members, text

MOST_RELEASES = 1_000
"""Of one process; more are an error rather than a record that leaves some out."""


class ProcurementSettings(KintoSettings):
    """``[settings]`` of a system with the adapter ``procurement``; ``url`` is Kinto's, with its version. The account
    may read the collection and create records in it."""

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

    def __init__(self, context: Context[ProcurementSettings, NoSettings]) -> None:
        super().__init__(context)
        self._kinto = Kinto(context)

    async def check(self) -> None:
        await self._kinto.ask("GET", self.context.settings.collection)

    async def handle(self, request: Request) -> Reply:
        match request.service.split("/")[1]:
            case "release":
                package = self._package(request)
                entry = {"ocid": package["releases"][0]["ocid"], "package": package}
                collection, refused = self.context.settings.collection, {400: "not_accepted"}
                stored, _ = await self._kinto.create(collection, request.exchange, entry, refused=refused)
                return _published(stored, package)
            case "record":
                return await self._record(request.body)
            case other:
                raise Broken(f"there is no service {other}")

    async def find(self, request: Request) -> Reply | None:
        """The release of this exchange, if it was published."""
        if request.service.split("/")[1] != "release":
            return None
        package = self._package(request)
        stored = await self._kinto.look_up(self.context.settings.collection, request.exchange)
        return None if stored is None else _published(stored, package)

    def _package(self, request: Request) -> dict[str, Any]:
        settings, body = self.context.settings, request.body
        if ocds.currencies(body) - {settings.currency}:
            raise Refused("currency_invalid")
        if ocds.ids_repeat(body):
            raise Refused("id_repeated")
        release = ocds.release(f"{settings.prefix}-{body['process']}", request.exchange, body)
        return ocds.package(f"{settings.uri}/{request.exchange}", settings.publisher, [release])

    async def _record(self, body: Mapping[str, Any]) -> Reply:
        settings = self.context.settings
        ocid = f"{settings.prefix}-{body['process']}"
        answer = await self._kinto.page(settings.collection, ocid=ocid, _limit=MOST_RELEASES + 1)
        packages = [member(each, "package") for each in items(answer.json(), "data") if member(each, "ocid") == ocid]
        if not packages:
            raise Refused("not_found")
        if len(packages) > MOST_RELEASES:
            raise Broken(f"there are more than {MOST_RELEASES} releases")
        try:
            # Merging many releases takes longer than the event loop may be kept.
            record = await self.context.in_thread(ocds.told, packages, versioned=body.get("versioned", False))
        except (KeyError, TypeError, ValueError) as error:
            raise Broken(f"what is stored are no releases: {type(error).__name__}") from error
        return Reply(record, note=f"compiled of {len(packages)} releases")


def _published(record: Mapping[str, Any], package: Mapping[str, Any]) -> Reply:
    """The reply for what lies in the store. Raises ``Broken`` if that is not this release."""
    stored = members(member(record, "package"))
    if stored.get("releases") != package["releases"]:
        raise Broken("another document lies in the store under this exchange")
    (release,) = package["releases"]
    told = {"ocid": release["ocid"], "release": release["id"], "date": release["date"], "tag": release["tag"]}
    return Reply(told | {"uri": text(stored, "uri")}, note=f"published as {release['ocid']}")
