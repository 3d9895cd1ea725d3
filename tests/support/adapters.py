"""One adapter by itself, opened with settings as a deployment writes them, without a bus around it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from gsb.model import Request, new_id
from gsb.sdk import Adapter, Context, Http

A = TypeVar("A", bound=Adapter[Any, Any])


@asynccontextmanager
async def opened(
    kind: type[A],
    settings: Mapping[str, Any],
    services: Mapping[str, Mapping[str, Any]],
    *,
    folder: Path = Path(),
    timeout: float = 10.0,
) -> AsyncIterator[A]:
    """The adapter after ``open``; ``folder`` is the deployment's. Raises pydantic.ValidationError for bad settings."""
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
