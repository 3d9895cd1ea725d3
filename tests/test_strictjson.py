"""The strict reader accepts what every JSON reader understands alike, and names the place of what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gsb import strictjson
from gsb.errors import BodyMalformed, Fault
from gsb.strictjson import loads


def refused(data: bytes, **limits: int) -> tuple[Fault, ...]:
    with pytest.raises(BodyMalformed) as caught:
        loads(data, **limits)
    return caught.value.faults


def pointers(data: bytes) -> list[str]:
    return [fault.pointer for fault in refused(data)]


@pytest.mark.parametrize(
    "data",
    [
        b"null",
        b' {"a" : [1, -2.5, "x", true, null, {}], "b": {"a": "a"}} ',
        b'{"a":"\\u00e9\\ud83d\\ude00","b":":","":":",":":""}',
        '{"nom":"Ou\u00e9draogo \U0001f600"}'.encode(),
        b"[1e300, 1E+20, 9007199254740993.0, 12345678901234567890e-5]",
        b"[9007199254740992, -9007199254740992, -0]",
        b'"9007199254740993 and 1e+20"',
    ],
)
def test_reads_what_everybody_reads(data: bytes) -> None:
    assert loads(data) == json.loads(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"  ",
        b"{",
        b'{"a":1,}',
        b"{'a':1}",
        b"[01]",
        b"[+1]",
        b"[.5]",
        b"[NaN]",
        b"[Infinity]",
        b"[1e999]",
        b"[-1e999]",
        b"[" + b"9" * 400 + b"]",
        b'["a\tb"]',
        b'["\xff"]',
        b'["\xed\xa0\x80"]',
        b'["\\ud800"]',
        b'["\\udc00\\ud800"]',
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b"{} {}",
        b"// comment\n{}",
        b'{"a":1}\x00',
    ],
)
def test_what_is_not_json_is_refused_as_a_whole(data: bytes) -> None:
    (fault,) = refused(data)
    assert fault.pointer == ""


def test_duplicates_are_named_by_their_place() -> None:
    assert pointers(b'{"a":1,"a":2}') == ["/a"]
    assert pointers(b'{"a":1,"\\u0061":1}') == ["/a"], "an escape does not hide a name"
    assert pointers(b'{"a" :1,"a":2}') == ["/a"], "nor does a space behind it"
    assert pointers(b'{"a"\n:1,"b":":","a"\t:2}') == ["/a"]
    assert pointers(b'{"x":[{},{"y/z":{"~":1,"~":1}}],"x":0}') == ["/x/1/y~1z/~0", "/x"]
    assert pointers(b'{"a":{"b":1},"a":{"b":1}}') == ["/a"]


def test_a_string_that_looks_like_a_name_makes_up_for_no_lost_one() -> None:
    assert pointers(b'{"a":1,"a":"\\u003a"}') == ["/a"]
    assert pointers(b'{"a":1,"a":"\\":"}') == ["/a"]
    assert pointers(b'{"":1,"":":"}') == ["/"]


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 2**63, 2**64, -(2**63) - 1, 10**30])
def test_integers_beyond_2_53_are_refused_in_place(number: int) -> None:
    assert pointers(b'{"a":[0,%d]}' % number) == ["/a/1"]


def nest(levels: int, inner: bytes = b"0") -> bytes:
    return b'{"a":[' * (levels // 2) + b"[" * (levels % 2) + inner + b"]" * (levels % 2) + b"]}" * (levels // 2)


def test_64_levels_are_read_and_65_are_not() -> None:
    assert loads(nest(64)) == json.loads(nest(64))
    assert pointers(nest(65)) == ["/a/0" * 32]
    assert pointers(nest(64, b"{}")) == ["/a/0" * 32]
    assert refused(b"[" * 100_000)[0].pointer == ""


def test_brackets_beside_each_other_or_in_strings_are_no_nesting() -> None:
    flat = orjson.dumps([{"a": [index]} for index in range(200)])
    assert loads(flat) == json.loads(flat)
    assert loads(b'"%b"' % (b"[" * 100)) == "[" * 100
    quoted = orjson.dumps(["[" * 100, '"' + "{" * 100 + "\\"])
    assert loads(quoted) == json.loads(quoted)


def test_the_limit_of_depth_is_a_parameter() -> None:
    assert loads(b"[[1]]", max_depth=2) == [[1]]
    assert [fault.pointer for fault in refused(b"[0,[[1]]]", max_depth=2)] == ["/1/0"]


def test_refusals_are_bounded_and_show_no_value() -> None:
    crowd = b"{" + b",".join(b'"a":"secret"' for _ in range(1_000)) + b"}"
    assert len(refused(crowd)) == strictjson.MAX_FAULTS
    long = b"n" * 600
    assert pointers(b'{"x":{"%b":{"y":1,"y":1}}}' % long) == ["/x/y"], "the nearest place that can be named"
    with pytest.raises(BodyMalformed) as caught:
        loads(b'{"a":"secret","a":9007199254749999}')
    shown = f"{caught.value} {caught.value.detail} {caught.value.faults}"
    assert "secret" not in shown
    assert "9007199254749999" not in shown


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from([":", '":', "\\", "e+", '"', "[", "a"])
)
names = st.sampled_from(["a", "b", ":", "", '":', "é"]) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
documents = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4))
writers: list[Callable[[Any], bytes]] = [
    orjson.dumps,
    lambda value: json.dumps(value).encode(),
    lambda value: json.dumps(value, ensure_ascii=False, indent=1, separators=(" , ", "\t:\n")).encode(),
]


@given(documents, st.sampled_from(writers))
def test_whatever_a_writer_wrote_is_read(value: Any, write: Callable[[Any], bytes]) -> None:
    assert loads(write(value)) == value


class Pairs(list[tuple[str, Any]]):
    """An object with its members in the order and number in which they are written."""


def write_pairs(value: Any, colon: str, ascii_only: bool) -> str:
    if isinstance(value, Pairs):
        members = (
            f"{json.dumps(name, ensure_ascii=ascii_only)}{colon}{write_pairs(inner, colon, ascii_only)}"
            for name, inner in value
        )
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(write_pairs(inner, colon, ascii_only) for inner in value) + "]"
    return json.dumps(value, ensure_ascii=ascii_only)


def unclean(value: Any) -> bool:
    if isinstance(value, Pairs):
        repeated = len({name for name, _ in value}) < len(value)
        return repeated or any(unclean(inner) for _, inner in value)
    if isinstance(value, list):
        return any(unclean(inner) for inner in value)
    return isinstance(value, int) and abs(value) > 2**53


risky = scalars | st.integers(-(2**70), 2**70)
trees = st.recursive(
    risky,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(names, inner), max_size=4).map(Pairs),
)


@settings(max_examples=400)
@given(trees, st.sampled_from([":", ": ", " :", "\r\n:"]), st.booleans())
@example(Pairs([("a", 1), ("a", ":")]), ":", False)
def test_exactly_the_unclean_documents_are_refused(tree: Any, colon: str, ascii_only: bool) -> None:
    data = write_pairs(tree, colon, ascii_only).encode()
    if unclean(tree):
        assert refused(data)
    else:
        assert loads(data) == orjson.loads(data)


@settings(max_examples=300)
@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,\\ u01eE+-.abd', max_size=40).map(str.encode))
def test_any_bytes_are_either_read_or_refused(data: bytes) -> None:
    try:
        value = loads(data)
    except BodyMalformed:
        return
    assert value == orjson.loads(data)
