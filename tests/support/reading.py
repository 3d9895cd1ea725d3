"""Reads the bus's own pages over real sockets, signed or not."""

from __future__ import annotations

import time

import aiohttp

from gsb import jws
from tests.support.deployment import BUS
from tests.support.node import Reachable


async def read(node: Reachable, path: str, agency: str | None = None) -> tuple[aiohttp.ClientResponse, bytes]:
    """The answer to a GET by this agency, or by nobody, and its body."""
    headers = {}
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
