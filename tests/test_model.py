"""The model's few rules: ids that sort by time, states that are final."""

from __future__ import annotations

import uuid

from gsb.model import FINAL, State, new_id, timestamp


def test_an_id_is_a_uuid_of_version_7_that_tells_its_millisecond() -> None:
    value = uuid.UUID(new_id(1_750_000_000.123))
    assert value.version == 7
    assert value.variant == uuid.RFC_4122
    assert value.int >> 80 == 1_750_000_000_123


def test_ids_sort_by_time_and_never_repeat() -> None:
    later = [new_id(1_750_000_000 + second) for second in range(50)]
    assert later == sorted(later)
    assert len({new_id(1.0) for _ in range(10_000)}) == 10_000


def test_exactly_the_last_four_states_are_final() -> None:
    assert [state for state in State if state.final] == list(State)[-4:]
    assert set(list(State)[-4:]) == FINAL


def test_a_timestamp_is_rfc_3339_in_utc() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
    assert timestamp(1_750_000_000.1239) == "2025-06-15T15:06:40.123Z"
