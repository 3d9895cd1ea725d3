"""What several modules of tests share for a whole run, because starting it costs seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.kafka import some_cluster


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """The addresses of a Kafka that no test stops; each makes topics under a prefix of its own."""
    with some_cluster() as brokers:
        yield brokers
