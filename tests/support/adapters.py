"""One adapter by itself, opened with settings as a deployment writes them; and adapters as they are installed."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from gsb.model import Request, new_id
from gsb.sdk import Adapter, Clock, Context, Http

A = TypeVar("A", bound=Adapter[Any, Any])


@asynccontextmanager
async def opened(
    kind: type[A],
    settings: Mapping[str, Any],
    services: Mapping[str, Mapping[str, Any]],
    *,
    folder: Path = Path(),
    timeout: float = 120.0,
    clock: Clock | None = None,
) -> AsyncIterator[A]:
    """The adapter after ``open``; ``folder`` is the deployment's. A call has more time than a busy machine may stand
    still. Raises pydantic.ValidationError for bad settings."""
    context = {"folder": folder}
    async with Http(timeout) as http:
        adapter = kind(
            Context(
                system="system",
                settings=kind.Settings.model_validate(dict(settings), context=context),
                services={
                    name: kind.ServiceSettings.model_validate(dict(table), context=context)
                    for name, table in services.items()
                },
                http=http,
                log=logging.getLogger("gsb.system.system"),
                clock=clock or Clock(),
            )
        )
        try:
            await adapter.open()
            yield adapter
        finally:
            await adapter.close()


def request(service: str, body: Any, **more: Any) -> Request:
    """What the bus would ask the adapter."""
    asked: dict[str, Any] = {"exchange": new_id(), "agency": "payroll", "purpose": "payroll", "sub": None, "case": None}
    return Request(service=service, body=body, deadline=0.0, **(asked | more))


# --- installed

MANIFEST = {"name": "wrong", "title": "T", "summary": "S", "owner": "O", "api": "1"}
GOOD = """
from gsb.sdk import Adapter, Reply
class Wrong(Adapter):
    async def handle(self, request):
        return Reply({})
"""


def install(site: Path, module: str, code: str, *, copies: int = 1, **manifest: str | None) -> None:
    """An adapter named ``wrong`` as a package manager would leave it."""
    package = site / module
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(code)
    members = {name: value for name, value in (MANIFEST | manifest).items() if value is not None}
    lines = (f"{name} = {value if value.isdigit() else json.dumps(value)}\n" for name, value in members.items())
    (package / "adapter.toml").write_text("".join(lines))
    for number in range(copies):
        metadata = site / f"{module}_{number}-1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}-{number}\nVersion: 1\n")
        (metadata / "entry_points.txt").write_text(f"[gsb.adapters]\nwrong = {module}:Wrong\n")
