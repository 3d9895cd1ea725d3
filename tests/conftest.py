"""What several modules of tests share: servers, because starting one costs seconds, and what is made on them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.kafka import some_cluster
from tests.support.postgres import some_server
from tests.support.stores import PostgresMaker
from tests.support.theatre import Hand, empty_stage, played, theatre

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
"""How long an example takes is the machine's affair; what the continuous run says beyond that, it says still."""


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """The addresses of a Kafka that no test stops; each makes topics under a prefix of its own."""
    with some_cluster() as brokers:
        yield brokers


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    """The URI of a PostgreSQL that no test stops."""
    with some_server() as found:
        yield found


@pytest.fixture
async def maker(dsn: str) -> AsyncIterator[PostgresMaker]:
    """Stores on a new schema of it; modules of another kind of store have a maker of their own."""
    made = PostgresMaker(dsn, bytes(range(32)))
    yield made
    await made.drop()


@pytest.fixture
def stage() -> Any:
    """The class of the adapter that plays what a test gives it."""
    return empty_stage()


@pytest.fixture
async def hand(tmp_path: Path, stage: Any) -> AsyncIterator[Hand]:
    """A runtime with one system, whose adapter is that one."""
    async with played(theatre(tmp_path, timeout=5.0), stage) as hand:
        yield hand
