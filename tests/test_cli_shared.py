"""What the commands print of what others said."""

from __future__ import annotations

import orjson
import pytest

from gsb.cli.shared import explain, print_json
from gsb.client import BusProblem, OutcomePending, ReplyUntrusted, Result, Unreachable
from gsb.send import ClientError


def test_a_terminal_is_told_nothing_that_it_would_obey_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"name": "Zoë \x1b[2J\x9b2J\u202egnp\n\U000e0001", "\x9b": [1.5]}
    print_json(value)
    said = capsys.readouterr().out
    assert orjson.loads(said) == value
    assert "Zoë" in said
    assert all(character.isprintable() or character == "\n" for character in said)


def test_a_terminal_is_told_nothing_that_it_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    document = {
        "code": "\x1b]0;mine\x07",
        "title": "line\r\ngsb: done",
        "detail": "\x9b2J\u202egnp",
        "errors": [{"pointer": "/\x1b[2J", "detail": "\x08\x08"}],
    }
    result = Result(403, document, None, None, None, None, False, {}, signed=False)
    assert explain(BusProblem(result)).exit_code == 5
    said = capsys.readouterr().err
    assert "(not signed by the bus)" in said
    assert len(said.splitlines()) == 2
    assert all(character.isprintable() or character == "\n" for character in said)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unreachable("POST https://bus.example/services/a/b/v1: Connection refused"), 6),
        (ReplyUntrusted("the reply carries 2 signatures"), 7),
        (OutcomePending("e-1", "waiting"), 8),
        (BusProblem(Result(503, None, None, None, None, None, False, {})), 5),
    ],
)
def test_whoever_has_no_outcome_is_told_the_key_to_repeat_with(
    error: ClientError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    error.idempotency_key = "k 1"
    assert explain(error).exit_code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("; call again with --idempotency-key 'k 1'")


def test_what_a_problem_speaks_of_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    document = {
        "code": "system_refused",
        "origin": "provider",
        "title": "The core system said no.",
        "detail": "See the member reason.",
        "instance": "urn:uuid:1",
        "reason": "not_found",
        "errors": [{"pointer": "", "detail": "not JSON"}],
    }
    error = BusProblem(Result(422, document, "e-1", "refused", "none", None, False, {"Retry-After": "7"}))
    error.idempotency_key = "k-1"
    assert explain(error).exit_code == 4
    text = "The core system said no. See the member reason."
    assert capsys.readouterr().err.splitlines() == [
        f"gsb: system_refused (422): {text} [reason: not_found, Retry-After: 7 s]",
        "  the whole body: not JSON",
        "  exchange e-1: refused, effect none",
    ]
