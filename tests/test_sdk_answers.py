"""What a status means that is no answer, and how an adapter says who it is."""

from __future__ import annotations

import base64

import pytest

from gsb.sdk import AdapterError, Broken, HttpReply, Refused, Unavailable, basic


def meaning(error: AdapterError) -> tuple[type, bool | str | None]:
    match error:
        case Unavailable(sent=sent):
            return Unavailable, sent
        case Refused(code=code):
            return Refused, code
    return type(error), None


@pytest.mark.parametrize(
    ("status", "means"),
    [
        (400, (Refused, "invalid")),
        (401, (Broken, None)),
        (404, (Broken, None)),
        (429, (Unavailable, False)),
        (500, (Broken, None)),
        (502, (Unavailable, True)),
        (503, (Unavailable, True)),
        (504, (Unavailable, True)),
    ],
)
def test_what_a_status_means(status: int, means: tuple[type, bool | str | None]) -> None:
    error = HttpReply(status, {"Retry-After": "7"}, b"why \xff" + b"x" * 1000).error({400: "invalid"})
    assert meaning(error) == means
    assert error.detail.startswith(f"status {status}: why")
    assert len(error.detail) < 600
    if isinstance(error, Unavailable):
        assert error.after == 7


def test_an_adapter_may_know_better() -> None:
    expected = {409: (Unavailable, False), 429: (Unavailable, True), 500: (Unavailable, True), 503: (Broken, None)}
    for status, means in expected.items():
        error = HttpReply(status, {}, b"").error(untouched=(409,), unavailable=(429, 500))
        assert meaning(error) == means


def test_basic_authentication_takes_any_letter() -> None:
    scheme, _, pair = basic("bus", "pass:wörd")["Authorization"].partition(" ")
    assert (scheme, base64.b64decode(pair).decode()) == ("Basic", "bus:pass:wörd")
