"""The feedback adapter in front of a real Roundup, and what the ombudsman's staff does and sees beside the bus."""

from __future__ import annotations

import base64
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp

from config.systems.roundup import web
from config.systems.running import Copy
from gsb.sdk import Request
from gsb_adapters.feedback import Feedback
from tests.support.adapters import opened, request

SERVICES: dict[str, dict[str, Any]] = {"feedback/submit/v1": {}, "feedback/status/v1": {}}


def adapter(system: Copy, **more: Any) -> AbstractAsyncContextManager[Feedback]:
    settings = {"url": web(system.place).rstrip("/"), "user": "gsb", "password": "gsb.txt", **more}
    return opened(Feedback, settings, SERVICES, folder=system.place.folder)


def complaint(subject: str = "Pothole on road N1", **more: Any) -> Request:
    return request("feedback/submit/v1", {"subject": subject, "text": "It grows.", **more})


async def as_user(
    system: Copy, method: str, item: str, content: Any = None, *, user: str = "gsb", **headers: str
) -> tuple[int, Any, str]:
    """A call on the tracker's own interface: its status, the data of its answer, and the answer's date."""
    pair = f"{user}:{(system.place.folder / f'{user}.txt').read_text('ascii')}"
    ours = {
        "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}",
        "X-Requested-With": "rest",
        "Origin": system.url,
        "Referer": web(system.place),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    url = f"{web(system.place)}rest/data/{item}"
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, json=content, headers=ours) as answer,
    ):
        said = await answer.json(content_type=None)
        return answer.status, said.get("data"), answer.headers["Date"]


async def filed(system: Copy, exchange: str) -> list[str]:
    """The complaints that bear a claim of this exchange."""
    _, found, _ = await as_user(system, "GET", f"keyword?name={exchange}")
    claims = [each["id"] for each in found["collection"]]
    if not claims:
        return []
    _, found, _ = await as_user(system, "GET", f"issue?keyword={','.join(claims)}")
    return [each["id"] for each in found["collection"]]


async def all_filed(system: Copy, subject: str) -> int:
    """How many complaints are about this, whoever filed them."""
    _, found, _ = await as_user(system, "GET", f"issue?title={subject}")
    return int(found["@total_size"])
