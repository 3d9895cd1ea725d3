"""A core system that speaks HTTP, for nodes that are processes of their own: it answers what the test says, and keeps
what it was asked.

    async with core_system() as core:
        deployment = beside(tmp_path, core)     # ``standard``, but its registry is this one, by the adapter http_json
        core.answers = lambda request: (503, {})
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support.bus import ONCE, READ, REPEATABLE
from tests.support.collector import served
from tests.support.deployment import PERSON, Deployment, standard

Answers = Callable[["Asked"], tuple[int, Any]]


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


def usual(asked: Asked) -> tuple[int, Any]:
    """A person to whoever reads, and to whoever writes what was written."""
    return 200, PERSON if asked.method == "GET" else asked.body


@dataclass
class Core:
    """Where it is, how it answers and what it was asked."""

    url: str = ""
    answers: Answers = usual
    asked: list[Asked] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.json() if request.body_exists else None
        asked = Asked(request.method, request.path_qs, dict(request.headers), body)
        if request.path != "/health":
            self.asked.append(asked)
        status, said = self.answers(asked)
        return web.json_response(said, status=status)


@asynccontextmanager
async def core_system() -> AsyncIterator[Core]:
    """One on a free port of loopback."""
    core = Core()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", core.take)
    async with served(app) as url:
        core.url = url
        yield core


def beside(root: Path, core: Core, **settings: Any) -> Deployment:
    """The standard deployment with this registry; ``settings`` are further ones of its adapter. Not yet written."""
    deployment = standard(root)
    deployment.system(
        "registry", adapter="http_json", settings={"url": core.url, "check": "/health", **settings}, timeout=60
    )
    deployment.gsb["adapters"]["allow"] = ["http_json"]
    refused = {"404": "not_found"}
    deployment.files[f"services/{READ}.toml"]["settings"] = {"path": "/people/{id}", "refused": refused}
    for service, path, method in ((REPEATABLE, "/marks", "PUT"), (ONCE, "/notes", "POST")):
        table = {"path": path, "method": method, "content": "body", "refused": refused}
        deployment.files[f"services/{service}.toml"]["settings"] = table
    return deployment
