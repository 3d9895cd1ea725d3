"""The one strict reader of JSON: what it accepts, every other reader of JSON understands in the same way.

Beyond the grammar (RFC 8259) it refuses what readers disagree about (I-JSON, RFC 7493): duplicate members,
integers beyond 2^53, lone surrogates, a byte order mark; and nesting that exhausts them. A number with a fraction
or an exponent is no integer here, whatever its value. It knows nothing of schemas, and it never repeats a value
in a message, only where it stands. A crash in here is a defect of this module: every input is either read or
refused with ``BodyMalformed``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import orjson

from gsb.errors import BodyMalformed, Fault

MAX_DEPTH = 64
MAX_INTEGER = 2**53
MAX_FAULTS = 20
"""Places that one refusal names; the first ones suffice to mend a client."""
MAX_POINTER = 512
"""Characters of a pointer; what lies deeper is named by its nearest enclosing place that fits."""

_SPACED_NAME = re.compile(rb'"[ \t\r\n]+:')
_BEYOND = object()
"""Stands for an integer beyond 2^53 while faults are looked for."""


class _Repeated(list[tuple[str, Any]]):
    """The members of an object in which a name stands twice, while faults are looked for."""


def loads(data: bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """Read strict JSON in UTF-8, at most ``max_depth`` levels of arrays and objects.

    Raises ``BodyMalformed`` with the places in question (JSON Pointers, at most 20) and never a value.
    """
    if not data:
        raise _refusal([Fault("", "the document is empty")])
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _refusal([Fault("", f"not JSON: {error}")]) from None
    if _deeper(data, value, max_depth):
        raise _refusal(_too_deep(value, "", max_depth - 1))
    if not _plain(data, value):
        faults = _faults(data)
        if faults:
            raise _refusal(faults)
    return value


def _refusal(faults: list[Fault] | Iterator[Fault]) -> BodyMalformed:
    named = tuple(islice(faults, MAX_FAULTS))
    return BodyMalformed(f"The first of its faults: {named[0].detail}.", faults=named)


def _deeper(data: bytes, value: Any, max_depth: int) -> bool:
    """Whether a document nests deeper; levels are only counted where there are enough brackets to do so."""
    if data.count(b"[") + data.count(b"{") <= max_depth:
        return False
    level = [value]
    for _ in range(max_depth):
        level = [
            item
            for outer in level
            for item in (outer.values() if type(outer) is dict else outer)
            if type(item) is dict or type(item) is list
        ]
        if not level:
            return False
    return True


def _plain(data: bytes, value: Any) -> bool:
    """Whether nothing can be wrong with this document: a quick yes, or a no that says nothing.

    A name that stands twice is in the document but not in what was read from it. Without escapes and with no
    space behind a name, every name ends in ``":`` and every string is written again as it was, so that this mark
    is counted more often in the document than in its second writing exactly when a member was lost on the way.
    The second writing refuses integers from 2^53 to 2^64, and what is larger became a float with an exponent.
    """
    if b"\\" in data or _SPACED_NAME.search(data):
        return False
    try:
        again = orjson.dumps(value, option=orjson.OPT_STRICT_INTEGER)
    except orjson.JSONEncodeError:
        return False
    return b"e+" not in again and data.count(b'":') == again.count(b'":')


def _faults(data: bytes) -> list[Fault]:
    """Duplicate members and integers beyond 2^53 in valid JSON; [] when there are none."""
    clean = True

    def members(pairs: list[tuple[str, Any]]) -> object:
        nonlocal clean
        unique = dict(pairs)
        if len(unique) == len(pairs):
            return unique
        clean = False
        return _Repeated(pairs)

    def integer(digits: str) -> object:
        nonlocal clean
        # 2^53 has 16 digits; the sign may be a further character.
        if len(digits) < 16 or abs(int(digits)) <= MAX_INTEGER:
            return None
        clean = False
        return _BEYOND

    tree = json.JSONDecoder(object_pairs_hook=members, parse_int=integer).decode(data.decode())
    return [] if clean else list(islice(_walk(tree, ""), MAX_FAULTS))


def _walk(value: object, pointer: str) -> Iterator[Fault]:
    if value is _BEYOND:
        yield Fault(pointer, "an integer beyond 2^53")
        return
    seen: set[str] = set()
    for name, inner in _inside(value):
        place = _below(pointer, name)
        if name in seen:
            yield Fault(place, "this member stands more than once")
        seen.add(name)
        yield from _walk(inner, place)


def _too_deep(value: object, pointer: str, levels: int) -> Iterator[Fault]:
    if levels < 0:
        yield Fault(pointer, "nested too deep")
        return
    for name, inner in _inside(value):
        if isinstance(inner, dict | list):
            yield from _too_deep(inner, _below(pointer, name), levels - 1)


def _inside(value: object) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, _Repeated):
        yield from value
    elif isinstance(value, list):
        yield from ((str(index), item) for index, item in enumerate(value))


def _below(pointer: str, name: str) -> str:
    """RFC 6901, section 3: the pointer of a member or item."""
    inner = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
    return inner if len(inner) <= MAX_POINTER else pointer
