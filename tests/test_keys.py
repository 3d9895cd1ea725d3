"""The registry: whose key counts when; and the bus's own keys."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gsb import jwk
from gsb.config import KeyFile
from gsb.errors import KeyNotActive, KeyRevoked, KeyUnknown, Problem, SigningUnavailable
from gsb.keys import LINGER, BusKeys, Life, Registry

PRIVATE = [jwk.read_private(jwk.generate(algorithm)) for algorithm in ("ES256", "Ed25519", "ES256")]
KEY = PRIVATE[0].public
SINCE, UNTIL = 1_000.0, 2_000.0


@pytest.mark.parametrize(
    ("life", "now"),
    [
        (Life("active"), 0.0),
        (Life("active", since=SINCE), SINCE),
        (Life("active", until=UNTIL), UNTIL - 0.001),
        (Life("retiring", until=UNTIL), UNTIL - 0.001),
        (Life("retiring", SINCE, UNTIL), SINCE),
        (Life("revoked", since=SINCE), SINCE - 0.001),
    ],
)
def test_keys_in_force_are_found(life: Life, now: float) -> None:
    registry = Registry([("payroll", KEY, life)])
    assert registry.find("payroll", KEY.kid, now) is KEY
    assert registry.revoked("payroll", KEY.kid, now) is False


@pytest.mark.parametrize(
    ("life", "now", "problem"),
    [
        (Life("announced"), SINCE, KeyNotActive),
        (Life("announced", since=SINCE), SINCE, KeyNotActive),
        (Life("active", since=SINCE), SINCE - 0.001, KeyNotActive),
        (Life("active", until=UNTIL), UNTIL, KeyNotActive),
        (Life("retiring", until=UNTIL), UNTIL, KeyNotActive),
        (Life("revoked"), 0.0, KeyRevoked),
        (Life("revoked", since=SINCE), SINCE, KeyRevoked),
        (Life("revoked", since=SINCE, until=UNTIL), UNTIL, KeyRevoked),
    ],
)
def test_keys_not_in_force_are_refused_with_their_reason(life: Life, now: float, problem: type[Problem]) -> None:
    registry = Registry([("payroll", KEY, life)])
    with pytest.raises(problem):
        registry.find("payroll", KEY.kid, now)
    assert registry.revoked("payroll", KEY.kid, now) is (problem is KeyRevoked)


@pytest.mark.parametrize(("owner", "kid"), [("audit-office", KEY.kid), ("payroll", "another")])
def test_a_key_belongs_to_one_owner(owner: str, kid: str) -> None:
    registry = Registry([("payroll", KEY, Life("active"))])
    with pytest.raises(KeyUnknown):
        registry.find(owner, kid, SINCE)
    assert registry.revoked(owner, kid, SINCE) is None


def test_a_life_is_read_from_its_table_in_utc() -> None:
    table = KeyFile.model_validate(
        {"file": "k", "state": "retiring", "since": "2024-01-01T02:00:00+02:00", "until": "2024-01-02T00:00:00Z"}
    )
    midnight = datetime(2024, 1, 1, tzinfo=UTC).timestamp()
    assert Life.of(table) == Life("retiring", midnight, midnight + 86_400)
    assert Life.of(KeyFile.model_validate({"file": "k"})) == Life("active", None, None)


def test_the_bus_signs_with_the_active_key_that_has_been_in_force_longest() -> None:
    old, newer, newest = PRIVATE
    keys = BusKeys(
        [
            (newest, Life("active", since=SINCE + 100)),
            (newer, Life("active", since=SINCE)),
            (old, Life("retiring", until=UNTIL)),
        ]
    )
    assert keys.signing(SINCE + 200) is newer
    with pytest.raises(SigningUnavailable):
        keys.signing(SINCE - 1)


def test_the_choice_follows_the_clock_both_ways() -> None:
    first, second, _ = PRIVATE
    keys = BusKeys([(first, Life("active", until=UNTIL)), (second, Life("active", since=SINCE))])
    times = (UNTIL - 1, UNTIL, UNTIL + 1, UNTIL - 1, SINCE - 1, UNTIL, SINCE)
    assert [keys.signing(now) is first for now in times] == [True, False, False, True, True, False, True]
    alone = BusKeys([(first, Life("active", since=SINCE, until=UNTIL))])
    for now, there in ((SINCE - 1, False), (SINCE, True), (UNTIL, False), (SINCE, True), (SINCE - 1, False)):
        if there:
            assert alone.signing(now) is first
        else:
            with pytest.raises(SigningUnavailable):
                alone.signing(now)


def test_a_key_without_a_beginning_is_the_oldest() -> None:
    old, newer, _ = PRIVATE
    keys = BusKeys([(newer, Life("active", since=SINCE)), (old, Life("active", until=UNTIL))])
    assert keys.signing(UNTIL - 1) is old
    assert keys.signing(UNTIL) is newer


def test_the_published_set_holds_public_keys_that_callers_should_know() -> None:
    announced, active, retiring = PRIVATE
    keys = BusKeys(
        [
            (announced, Life("announced")),
            (active, Life("active", since=SINCE)),
            (retiring, Life("retiring", until=UNTIL)),
        ]
    )
    published = keys.jwks(SINCE - 1)["keys"]
    assert [key["kid"] for key in published] == [announced.kid, active.kid, retiring.kid]
    assert keys.jwks(UNTIL + LINGER - 1)["keys"] == published, "what it signed last is still on its way"
    assert [key["kid"] for key in keys.jwks(UNTIL + LINGER)["keys"]] == [announced.kid, active.kid]
    assert [(key["alg"], key["use"]) for key in published] == [("ES256", "sig"), ("Ed25519", "sig"), ("ES256", "sig")]
    assert not {"d", "p", "q"} & {name for key in published for name in key}
    assert BusKeys([(announced, Life("revoked"))]).jwks(SINCE) == {"keys": []}
