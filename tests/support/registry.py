"""The registry adapter in front of a real Kinto, and what a clerk of the register does beside the bus."""

from __future__ import annotations

import base64
import json
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp

from config.systems.running import Copy
from gsb.schema import Schema
from gsb.sdk import Broken, Clock, Refused, Request, Unavailable
from gsb_adapters.registry import Registry
from tests.support.adapters import opened, request
from tests.support.sockets import answering

SCHEMAS = Path(__file__).parents[2] / "schemas"
BUSINESSES = "/buckets/registry/collections/businesses"
SERVICES: dict[str, dict[str, Any]] = {
    f"registry/{name}/v1": {} for name in ("business", "register-business", "changes", "identity")
}


def adapter(system: Copy, *, clock: Clock | None = None, **more: Any) -> AbstractAsyncContextManager[Registry]:
    settings = {"url": f"{system.url}/v1", "user": "gsb", "password": "gsb.txt", **more}
    return opened(Registry, settings, SERVICES, folder=system.place.folder, clock=clock)


async def as_registrar(system: Copy, method: str, path: str, data: Any = None, **more: Any) -> Any:
    """What a clerk of the register does, beside the bus."""
    pair = f"admin:{(system.place.folder / 'admin.txt').read_text('ascii')}"
    headers = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    content = None if data is None else {"data": data, **more}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"{system.url}/v1{path}", json=content, headers=headers) as answer,
    ):
        answer.raise_for_status()
        return await answer.json()


async def new_collection(system: Copy, name: str) -> str:
    """An empty register to which the bus may add."""
    schema = (await as_registrar(system, "GET", BUSINESSES))["data"]["schema"]
    may = {"record:create": ["account:gsb"]}
    await as_registrar(system, "PUT", f"/buckets/registry/collections/{name}", {"schema": schema}, permissions=may)
    return f"registry/{name}"


def registration(brn: str, **more: Any) -> Request:
    return request("registry/register-business/v1", {"brn": brn, "name": "Société Aïssa", **more})


def fits(service: str, body: Any) -> Any:
    schema = Schema.compile(json.loads((SCHEMAS / service / "reply.json").read_bytes()), service)
    assert schema.faults(body) == []
    return body


async def ask(registry: Registry, service: str, body: Any) -> Any:
    return fits(service, (await registry.handle(request(service, body))).body)


async def told(tmp_path: Path, answer: bytes, asked: Request) -> BaseException:
    (tmp_path / "password").write_text("x")
    async with answering(answer) as server:
        settings = {"url": server.url, "user": "gsb", "password": "password"}
        async with opened(Registry, settings, SERVICES, folder=tmp_path) as registry:
            try:
                await registry.handle(asked)
            except (Broken, Refused, Unavailable) as error:
                return error
    raise AssertionError("it was believed")
