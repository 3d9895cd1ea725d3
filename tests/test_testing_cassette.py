"""Cassettes and what plays them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gsb.sdk import Broken, Refused
from gsb.testing.cassette import Cassette, Played, Step, Steps, Tape, read_cassettes
from tests.support.theatre import REQUEST


def call(path: str, answer: Any, content: Any = None, **more: Any) -> Played:
    return Played(method="POST", path=path, content=content, answer=answer, **more)


def tape(*calls: Played) -> Tape:
    return Tape([Cassette(service="a/b/v1", request={}, reply={}, calls=calls)])


def answers(played: Tape, *contents: bytes, path: str = "/") -> list[Any]:
    found = [played.play("POST", path, content) for content in contents]
    return [each and each.answer for each in found]


def test_a_document_reads_back_as_it_was(tmp_path: Path) -> None:
    cassette = Cassette(
        note="by hand", service="a/b/v1", request={"x": 1.5}, refused="closed", calls=(call("/a?b=1", [1]),)
    )
    (tmp_path / "one.json").write_bytes(cassette.document())
    assert read_cassettes(tmp_path) == {"one": cassette}
    assert "exchange" not in cassette.document().decode(), "what is as usual is not said"


@pytest.mark.parametrize(
    "wrong", [{}, {"reply": {}, "refused": "x"}, {"reply": {}, "calls": [{"method": "GET", "path": "a"}]}, {"more": 1}]
)
def test_what_is_no_cassette_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Cassette.model_validate({"service": "a/b/v1", "request": {}} | wrong)


def test_calls_to_one_path_are_told_apart_by_what_they_send() -> None:
    played = tape(call("/", "login", "l"), call("/", "first", "x"), call("/", "other", "y"), call("/", "second", "x"))
    assert answers(played, b'"x"', b'"y"', b'"x"', b'"x"', b'"l"') == ["first", "other", "second", "second", "login"]
    assert (played.unknown, played.other) == ([], [])


def test_what_a_cassette_holds_otherwise_is_played_in_order_and_told() -> None:
    played = tape(call("/", 1, "a"), call("/", 2, "b"))
    assert answers(played, b'"z"', b"", b'"z"') == [1, 2, 2]
    assert played.other == ["POST /"] * 3
    assert answers(played, b"", path="/none?secret=1") == [None]
    assert played.unknown == ["POST /none"]


def test_what_nobody_asked_for_is_told() -> None:
    played = tape(call("/", 1), call("/", 2), call("/more", 3))
    assert answers(played, b"") == [1]
    assert played.unplayed == ["POST /", "POST /more"]


@pytest.mark.parametrize(
    ("given", "body"),
    [
        ({"answer": {"a": 1.5}}, b'{"a":1.5}'),
        ({"answer": None}, b""),
        ({"answer": None, "answer_text": "<a/>"}, b"<a/>"),
    ],
)
def test_an_answer_is_json_or_text(given: dict[str, Any], body: bytes) -> None:
    assert Played(method="GET", path="/", **given).body == body
    assert Played(method="GET", path="/", content_text="<a/>").same(b"<a/>")


async def test_steps_are_played_to_the_same_request_by_their_name() -> None:
    steps = (
        Step(step="one", service="id/person/v1", request={"id": 1}, reply={"name": "A"}),
        Step(step="two", service="id/person/v1", request={"id": 2}, refused="not_found"),
    )
    cassette = Cassette(service="a/b/v1", request={}, reply={}, steps=steps)
    play = Steps([cassette])
    assert await play(REQUEST, "id/person/v1", {"id": 1}, step="one", purpose="p") == {"name": "A"}
    with pytest.raises(Refused) as refused:
        await play(REQUEST, "id/person/v1", {"id": 2}, step="two", purpose="p")
    assert refused.value.code == "not_found"
    for name, body in (("one", {"id": 2}), ("three", {"id": 1})):
        with pytest.raises(Broken, match="no cassette holds the step"):
            await play(REQUEST, "id/person/v1", body, step=name, purpose="p")
