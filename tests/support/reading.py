"""Reads the bus's own pages over real sockets, signed or not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import aiohttp

from gsb import jws
from tests.support.deployment import BUS
from tests.support.node import Reachable


async def read(
    node: Reachable, path: str, agency: str | None = None, **more: str
) -> tuple[aiohttp.ClientResponse, bytes]:
    """The answer to a GET by this agency, or by nobody, with more headers, and its body."""
    headers = {name.replace("_", "-"): value for name, value in more.items()}
    if agency is not None:
        headers["GSB-Signature"] = jws.sign_request(
            node.deployment.key(agency),
            issuer=agency,
            audience=BUS,
            method="GET",
            target_uri=node.url + path,
            body=b"",
            content_type=None,
            now=time.time(),
        )
    async with aiohttp.ClientSession() as session, session.get(node.url + path, headers=headers) as answer:
        return answer, await answer.read()


async def published(node: Reachable, *, holding: Callable[[bytes], bool] = lambda note: True) -> bytes:
    """The newest log's checkpoint, as soon as there is one that is fit. A node publishes each second."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(90):
        while True:
            async with session.get(f"{node.operations_url}/log/checkpoint") as answer:
                note = await answer.read()
                if answer.status == 200 and holding(note):
                    return note
            await asyncio.sleep(0.05)


def size_of(note: bytes) -> int:
    """How many entries a checkpoint stands for, whoever signed it."""
    return int(note.split(b"\n")[1])


async def missing(http: aiohttp.ClientSession, url: str, names: list[str]) -> None:
    """Wait until the node says that this is missing."""
    async with asyncio.timeout(90):
        while True:
            async with http.get(f"{url}/readyz") as answer:
                if (await answer.json()).get("missing", []) == names:
                    return
            await asyncio.sleep(0.05)
