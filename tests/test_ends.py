"""When the bus's keys and its certificate end, as a node tells it: before, at a reload, and where there is no end."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families

from gsb import jwk
from gsb.bus import Bus
from gsb.catalogue import build
from gsb.keys import BusKeys, Life
from gsb.roles import Role, Roles
from tests.support.bus import bus_of
from tests.support.certificates import certificate
from tests.support.deployment import Deployment, standard

FIRST, NEXT = [jwk.read_private(jwk.generate(algorithm)) for algorithm in ("ES256", "Ed25519")]


def told(bus: Bus) -> dict[str, float]:
    """What a node says when its key and its certificate end."""
    text = bus.metrics.text({}, {}).decode()
    families = [each for each in text_string_to_metric_families(text) if each.name == "gsb_key_ends_timestamp_seconds"]
    return {sample.labels["key"]: sample.value for each in families for sample in each.samples}


def end_of(path: Path) -> float:
    return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp()


def with_tls(tmp_path: Path) -> tuple[Deployment, Path]:
    deployment = standard(tmp_path)
    pem = certificate(deployment.write(), "gateway")
    deployment.gsb["listen"]["tls"] = {"certificate": pem.name, "key": pem.name}
    return deployment, pem


@pytest.mark.parametrize(
    ("lives", "until"),
    [
        ([], None),
        ([Life("active")], math.inf),
        ([Life("active", until=2_000.0)], 2_000.0),
        ([Life("active", until=2_000.0), Life("active", since=1_900.0)], math.inf),
        ([Life("active", until=2_000.0), Life("active", 1_900.0, 3_000.0)], 3_000.0),
        ([Life("active", 1_900.0, 3_000.0), Life("active", until=2_000.0)], 3_000.0),
        ([Life("active", until=2_000.0), Life("active", since=2_001.0)], 2_000.0),
        ([Life("active", until=500.0), Life("active", since=900.0)], math.inf),
        ([Life("active", until=500.0)], 1_000.0),
        ([Life("active", until=2_000.0), Life("retiring")], 2_000.0),
        ([Life("active", until=2_000.0), Life("announced")], 2_000.0),
        ([Life("active", until=2_000.0), Life("revoked", since=5_000.0)], 2_000.0),
    ],
)
def test_the_bus_signs_as_long_as_its_keys_follow_each_other(lives: list[Life], until: float | None) -> None:
    assert BusKeys(zip((FIRST, NEXT), lives, strict=False)).signs_until(1_000.0) == until


async def test_a_key_without_an_end_is_told_as_such_and_no_certificate_where_there_is_none(tmp_path: Path) -> None:
    async with bus_of(standard(tmp_path)) as hands:
        assert told(hands.bus) == {"bus": math.inf}


async def test_the_end_of_the_certificate_is_that_of_the_one_that_callers_are_shown(tmp_path: Path) -> None:
    deployment, pem = with_tls(tmp_path)
    async with bus_of(deployment) as hands:
        first = end_of(pem)
        assert told(hands.bus)["certificate"] == first
        renewed = certificate(deployment.folder, "renewed").read_bytes()
        pem.write_bytes(renewed)
        assert told(hands.bus)["certificate"] == first, "nobody was told to read it yet"
        deployment.gsb["bus"]["keys"][0]["until"] = "2040-01-01T00:00:00Z"
        hands.bus.take_up(build(deployment.write()))
        ends = told(hands.bus)
        assert ends == {"bus": 2_208_988_800.0, "certificate": end_of(pem)}
        pem.write_bytes(b"none")
        hands.bus.take_up(build(deployment.write()))
        assert told(hands.bus) == ends, "the one before is still what callers are shown"


async def test_a_node_that_shows_no_certificate_tells_no_end_of_one(tmp_path: Path) -> None:
    deployment, _ = with_tls(tmp_path)
    async with bus_of(deployment) as hands:
        bus = hands.bus
        worker = Bus(bus.catalogue, bus.store, bus.broker, type(bus.runtime)(), roles=Roles(frozenset({Role.WORKER})))
        assert "certificate" not in told(worker)
