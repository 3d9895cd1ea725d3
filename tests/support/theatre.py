"""A theatre: one system whose adapter plays what the test gives it, in a real runtime whose clock the test turns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from gsb.catalogue import build
from gsb.runtime import Answered, Runtime
from gsb.sdk import Request, Unavailable
from tests.support.deployment import Deployment

SERVICE = "theatre/play/v1"
REQUEST = Request(
    exchange="0190",
    agency="payroll",
    service=SERVICE,
    body={"act": 1},
    purpose="audit",
    sub=None,
    case=None,
    deadline=0.0,
)
Play = Callable[..., Awaitable[Any]]


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Hand:
    """One runtime with the system ``theatre``, and the strings by which the adapter is moved."""

    def __init__(self, runtime: Runtime, catalogue: Any, clock: Clock, stage: Any) -> None:
        self.runtime = runtime
        self.service = catalogue.services[SERVICE]
        self.clock = clock
        self.plays: dict[str, Play] = stage.plays
        self.past: list[str] = stage.past
        self.stage = stage

    async def call(self, body: Any = None) -> Answered:
        request = REQUEST if body is None else replace(REQUEST, body=body)
        return await self.runtime.call(self.service, lambda deadline: replace(request, deadline=deadline))

    async def find(self) -> Answered | None:
        return await self.runtime.find(self.service, lambda deadline: replace(REQUEST, deadline=deadline))

    async def fail(self, times: int) -> None:
        self.plays["handle"] = raising(Unavailable(sent=False))
        for _ in range(times):
            with pytest.raises(Unavailable):
                await self.call()

    @property
    def health(self) -> str | None:
        return self.runtime.health()["theatre"]


def raising(error: BaseException) -> Play:
    async def play(*arguments: object) -> None:
        raise error

    return play


def answering(answer: Any) -> Play:
    async def play(*arguments: object) -> Any:
        return answer

    return play


def empty_stage() -> Any:
    """The adapter's class, with nothing to play and no past."""
    stage = import_module("gsb_adapter_stage").Stage
    stage.plays.clear()
    stage.past.clear()
    return stage


def theatre(root: Path, **system: Any) -> Deployment:
    deployment = Deployment(root)
    deployment.gsb["adapters"]["allow"] = ["stage"]
    deployment.system("theatre", adapter="stage", **system)
    deployment.service(SERVICE)
    return deployment


@asynccontextmanager
async def played(deployment: Deployment, stage: Any) -> AsyncIterator[Hand]:
    catalogue, clock = build(deployment.write()), Clock()
    runtime = Runtime(clock)
    await runtime.open(catalogue)
    try:
        yield Hand(runtime, catalogue, clock, stage)
    finally:
        await runtime.close()
