"""Batches of customs declarations as agencies lodge them, and the server and customs house that get them."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from config.systems.customshouse import register
from config.systems.running import Copy
from gsb.schema import Schema
from gsb_adapters.customs import Customs
from tests.support.adapters import opened, request
from tests.support.real import real

LODGE, ACKNOWLEDGED = "customs/declaration-batch/v1", "customs/acknowledgement/v1"
SCHEMAS = Path(__file__).parents[2] / "schemas"
CURRENCY = "XOF"


def schema(service: str, side: str) -> Schema:
    return Schema.compile(json.loads((SCHEMAS / service / f"{side}.json").read_bytes()), f"{service}/{side}")


def money(amount: Decimal | str) -> dict[str, str]:
    return {"amount": f"{Decimal(amount):.2f}", "currency": CURRENCY}


def declaration(reference: str, **more: Any) -> dict[str, Any]:
    """One that the customs house accepts."""
    goods = {"commodity": "18010000", "description": "Fèves de cacao", "net_mass": "12500.000", "origin": "CI"}
    amounts = {"value": money("100.10"), "duty": money("10.01")}
    return {"reference": reference, "declarant": "TIN-1001", "procedure": "4000"} | goods | amounts | more


def total(declarations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sums = {
        name: money(sum((Decimal(each[name]["amount"]) for each in declarations), Decimal()))
        for name in ("value", "duty")
    }
    return {"count": len(declarations)} | sums


def batch(declarations: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    body = {"office": "SNDKR", "declarations": list(declarations), "control": total(declarations)} | more
    assert schema(LODGE, "request").faults(body) == []
    return body


def lodging(*declarations: Mapping[str, Any], **more: Any) -> Any:
    return request(LODGE, batch(declarations, **more))


def asked_for(lodged: Any, **more: Any) -> Any:
    """For the acknowledgement of what was lodged by this request."""
    return request(ACKNOWLEDGED, {"batch": name_of(lodged)}, **more)


def name_of(lodged: Any) -> str:
    return str(lodged.exchange).replace("-", "")


@dataclass(frozen=True, slots=True)
class Border:
    """The server and the customs house, which is not there at first."""

    folder: Path
    sshd: Copy

    @property
    def account(self) -> Path:
        """The account's folder, beside the bus."""
        return self.sshd.place.folder / "customs"

    def adapter(self, kind: str, **more: Any) -> AbstractAsyncContextManager[Customs]:
        keys = {"host_key": "host_key.pub", "client_key": "customs_key"}
        where = {"host": self.sshd.host, "port": self.sshd.port, "patience": 60}  # a busy machine may stand still
        settings = where | {"format": kind} | keys | more
        services: dict[str, dict[str, Any]] = {LODGE: {}, ACKNOWLEDGED: {}}
        return opened(Customs, settings, services, folder=self.sshd.place.folder)

    def house(self) -> AbstractAsyncContextManager[Copy]:
        return real("customshouse", self.folder)

    def there(self, *folders: str) -> list[str]:
        """Whole files in these folders."""
        found = (path for each in folders for path in (self.account / each).iterdir() if path.is_file())
        return sorted(path.name for path in found if not path.name.startswith("."))

    async def taken(self) -> None:
        """The customs house has nothing more to do: what it acknowledges it moves away a moment later."""
        for _ in range(1_500):
            if self.there("inbox") == []:
                return
            await asyncio.sleep(0.1)
        raise AssertionError("it is not taken")

    def answer(self, kind: str, name: str, content: bytes) -> None:
        """Put an acknowledgement there as a customs system does that writes under final names."""
        (self.account / "outbox" / f"{name}.ack.{kind}").write_bytes(content)


@asynccontextmanager
async def border(folder: Path) -> AsyncIterator[Border]:
    async with real("sshd", folder) as sshd:
        yield Border(folder, sshd)


def registered(house: Copy) -> dict[str, dict[str, Any]]:
    """What became of each declaration, by batch; a batch that was taken twice is an error."""
    lines = register(house.place)
    assert len({line["batch"] for line in lines}) == len(lines)
    return {line["batch"]: line["declarations"] for line in lines}


def answer(kind: str, name: str, lines: Sequence[Sequence[str]], totals: Sequence[str]) -> bytes:
    """An acknowledgement as the customs house writes it; ``lines`` are reference, status, code, registration."""
    if kind == "csv":
        text = io.StringIO()
        csv.writer(text).writerows([["H", "1", name], *(["A", *line] for line in lines), ["T", *totals]])
        return text.getvalue().encode()
    names = ("reference", "status", "code", "registration")
    stated = ("count", "value", "duty", "accepted", "acceptedValue", "acceptedDuty")
    told = "".join(_element("Declaration", dict(zip(names, line, strict=True))) for line in lines)
    told += _element("ControlTotal", dict(zip(stated, totals, strict=True)))
    root = f'Acknowledgement xmlns="urn:gsb:customs:1" version="1" batch={quoteattr(name)}'
    return f"<{root}>{told}</Acknowledgement>".encode()


def _element(name: str, attributes: Mapping[str, str]) -> str:
    return f"<{name} {' '.join(f'{each}={quoteattr(value)}' for each, value in attributes.items())}/>"
