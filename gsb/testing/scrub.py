"""Makes a recording fit to be kept: no secret is left in it, and of people nothing that is theirs.

Three steps. Whatever the service's schemas call personal, and every secret, is replaced wherever it stands, by
something of the same form. Of the system's answers everything else is replaced too, but for what the outcome depends
on. Then the result is replayed, and kept only if it plays by itself and nothing that was to go is left. What cannot be
scrubbed so is refused, never kept by half. Replacements are drawn at random, so nobody can work them out again.
"""

from __future__ import annotations

import re
import secrets as randomness
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from gsb.schema import Schema
from gsb.sdk.errors import Refused
from gsb.testing.cassette import Cassette, Played, parsed
from gsb.testing.conduct import SHORTEST, values_at
from gsb.testing.offline import Replayed, replayed
from gsb.testing.subject import Subject

DIGITS, LOWER, UPPER = "0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
INSTEAD = "scrubbed"
"""What stands where a secret stood."""
TRIES = 20
Leaf = tuple[int, tuple[str | int, ...]]
"""One value in an answer: of which call, and where in its JSON."""


class Unscrubbed(Exception):
    """The recording cannot be kept; one sentence without any value says why."""


async def scrubbed(subject: Subject, recording: Cassette, secrets: Sequence[str]) -> Cassette:
    """The recording without secrets and people. Raises Unscrubbed."""
    found = _replacements(subject, recording, secrets)
    kept = await _settled(subject, _replaced(recording, found))
    kept = await _reckoned_anew(subject, kept)
    kept = await _without_the_rest(subject, kept)
    left = [value for value in found if len(value) >= SHORTEST and _stands(value, kept)]
    if left:
        raise Unscrubbed(f"{len(left)} values that were to go are still in it, perhaps in another form")
    faults = _unfit(subject, kept) + (await replayed(subject, kept)).faults
    if faults:
        raise Unscrubbed(f"it does not play without what was taken out: {faults[0]}")
    return kept


# --- what must go


def _replacements(subject: Subject, recording: Cassette, secrets: Sequence[str]) -> Mapping[str, str]:
    """Of each value that must go what takes its place; longer ones first, lest a part be replaced in them."""
    found = {secret: INSTEAD for secret in secrets if secret}
    found |= {value: disguised(value) for value in (recording.sub, recording.case) if value}
    for side, body in (("request", recording.request), ("reply", recording.reply)):
        schema = subject.schemas[f"{recording.service}/{side}"]
        for pointer in sorted({*schema.personal, *filter(None, [schema.subject])}):
            for value in values_at(body, pointer.split("/")[1:]):
                if value not in found and value.strip("-0.") and not _closed(schema, value):
                    found[value] = _fitting(schema, body, value, pointer)
    return dict(sorted(found.items(), key=lambda each: -len(each[0])))


def _fitting(schema: Schema, body: Any, value: str, pointer: str) -> str:
    """Something of the same form that the schema takes where the value stands."""
    before = len(schema.faults(body))
    for number in range(TRIES):
        new = disguised(value, digits_only=number >= TRIES // 2)
        if len(schema.faults(_in(body, {value: new}))) <= before:
            return new
    raise Unscrubbed(f"nothing that could take the place of what stands at {pointer} fits the schema")


def _closed(schema: Schema, value: str) -> bool:
    """Whether it is one of a few that the schema lists, which says nothing of whose it is."""
    return any(str(each) == value for each in _listed(schema.document))


def _listed(part: Any) -> Iterator[Any]:
    if isinstance(part, dict):
        yield from part.get("enum", []) if isinstance(part.get("enum"), list) else []
        if isinstance(part.get("const"), str | int | float):
            yield part["const"]
        for each in part.values():
            yield from _listed(each)
    elif isinstance(part, list):
        for each in part:
            yield from _listed(each)


def disguised(value: str, *, digits_only: bool = False) -> str:
    """Every digit replaced by a digit, and every letter by a letter of its case, at random and never by itself."""
    letters = {} if digits_only else {UPPER: str.isupper, LOWER: str.isalpha}
    kinds: Mapping[str, Callable[[str], bool]] = {DIGITS: str.isdigit, **letters}
    return "".join(
        next((randomness.choice(kind.replace(each, "")) for kind, is_of in kinds.items() if is_of(each)), each)
        for each in value
    )


# --- put in its place


def _replaced(cassette: Cassette, found: Mapping[str, str]) -> Cassette:
    calls = tuple(_replaced_call(call, found) for call in cassette.calls)
    bodies = {"request": _in(cassette.request, found), "reply": _in(cassette.reply, found)}
    names = {"sub": _in(cassette.sub, found), "case": _in(cassette.case, found)}
    return cassette.model_copy(update={**bodies, **names, "calls": calls})


def _replaced_call(call: Played, found: Mapping[str, str]) -> Played:
    path = call.path
    for old, new in found.items():
        for form, instead in ((quote(old, safe=""), quote(new, safe="")), (old, new)):
            whole = "" if len(old) >= SHORTEST else r"(?<=[/=])", "" if len(old) >= SHORTEST else r"(?=[/?&]|$)"
            path = re.sub(f"{whole[0]}{re.escape(form)}{whole[1]}", instead, path)
    members = {name: _in(getattr(call, name), found) for name in ("content", "content_text", "answer", "answer_text")}
    return call.model_copy(update={**members, "path": path, "headers": _in(call.headers, found)})


def _in(value: Any, found: Mapping[str, str]) -> Any:
    """The same with every value replaced: within texts, but short ones and numbers only as a whole."""
    match value:
        case str():
            if value in found:
                return found[value]
            for old, new in found.items():
                value = value.replace(old, new) if len(old) >= SHORTEST else value
            return value
        case int() | float() if not isinstance(value, bool):
            return next((_number(new) for old, new in found.items() if _number(old) == value), value)
        case dict():
            return {_in(name, found): _in(each, found) for name, each in value.items()}
        case list() | tuple():
            return [_in(each, found) for each in value]
        case _:
            return value


def _number(text: str) -> int | float | None:
    """What a system may have made of an amount: 1234.50 is 1234.5 there."""
    if not re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,6})?", text):
        return None
    return float(text) if "." in text else int(text)


def _stands(value: str, cassette: Cassette) -> bool:
    text = cassette.document().decode()
    return value in text or quote(value, safe="") in text


# --- what nobody needs


async def _settled(subject: Subject, cassette: Cassette) -> Cassette:
    """With what the adapter now sends, and the outcome that it now comes to."""
    played = await replayed(subject, cassette)
    if len(played.sent) != len(cassette.calls):
        raise Unscrubbed("it takes another way through the system without what was taken out: " + _first(played))
    calls = (
        call.model_copy(update={"content": parsed(sent)}) if call.content is not None else call
        for call, sent in zip(cassette.calls, played.sent, strict=True)
    )
    outcome = _outcome(played)
    if outcome is None:
        raise Unscrubbed("it does not end any more without what was taken out: " + _first(played))
    return cassette.model_copy(update={**outcome, "calls": tuple(calls)})


async def _reckoned_anew(subject: Subject, cassette: Cassette) -> Cassette:
    """With other numbers in the answers, and what follows from them: an amount that the adapter rounds stands in no
    answer, and still is somebody's."""
    numbers = [leaf for leaf in _all_leaves(cassette) if not isinstance(_at(cassette, leaf), str)]
    for leaves in (numbers, *([leaf] for leaf in numbers)):
        with suppress(Unscrubbed):
            other = await _settled(subject, _disguise(cassette, leaves))
            if not _unfit(subject, other):
                cassette = other
                if leaves is numbers:
                    break
    return cassette


def _outcome(played: Replayed) -> dict[str, Any] | None:
    if played.came.reply is not None:
        return {"reply": played.came.reply.body, "refused": None}
    if isinstance(played.came.error, Refused):
        return {"reply": None, "refused": played.came.error.code}
    return None


def _first(played: Replayed) -> str:
    return played.faults[0] if played.faults else "no reason is known"


async def _without_the_rest(subject: Subject, cassette: Cassette) -> Cassette:
    """Of the answers only what the outcome depends on stays as it was; headers that it does not need are gone."""
    bare = _update(cassette, lambda call: call.model_copy(update={"headers": {}}))
    cassette = await _same(subject, bare, cassette) or _update(cassette, _needed_headers)
    leaves = _all_leaves(cassette)
    every = await _same(subject, _disguise(cassette, leaves), cassette)
    if every is not None:
        return every
    for leaf in leaves:
        cassette = await _same(subject, _disguise(cassette, [leaf]), cassette) or cassette
    return cassette


async def _same(subject: Subject, other: Cassette, cassette: Cassette) -> Cassette | None:
    """The other, with what is then sent (such as the token of a session), if it comes to the same outcome."""
    with suppress(Unscrubbed):
        settled = await _settled(subject, other)
        if (settled.reply, settled.refused) == (cassette.reply, cassette.refused):
            return settled
    return None


def _needed_headers(call: Played) -> Played:
    """Those that adapters may go by: whatever tells of a session, a server or a time is none of them."""
    gone = re.compile(r"(?i)set-cookie|authorization|date|server|via|x-.*|connection|transfer-encoding|content-.*")
    return call.model_copy(
        update={"headers": {name: text for name, text in call.headers.items() if not gone.fullmatch(name)}}
    )


def _update(cassette: Cassette, change: Callable[[Played], Played]) -> Cassette:
    return cassette.model_copy(update={"calls": tuple(change(call) for call in cassette.calls)})


def _all_leaves(cassette: Cassette) -> list[Leaf]:
    return [(number, path) for number, call in enumerate(cassette.calls) for path in _leaves(call.answer, ())]


def _at(cassette: Cassette, leaf: Leaf) -> Any:
    value = cassette.calls[leaf[0]].answer
    for step in leaf[1]:
        value = value[step]
    return value


def _leaves(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    match value:
        case dict():
            for name, each in value.items():
                yield from _leaves(each, (*path, name))
        case list():
            for index, each in enumerate(value):
                yield from _leaves(each, (*path, index))
        case str() | int() | float() if not isinstance(value, bool):
            yield path


def _disguise(cassette: Cassette, leaves: Sequence[Leaf]) -> Cassette:
    calls = list(cassette.calls)
    for number, path in leaves:
        calls[number] = calls[number].model_copy(update={"answer": _disguised_at(calls[number].answer, path)})
    return cassette.model_copy(update={"calls": tuple(calls)})


def _disguised_at(value: Any, path: tuple[str | int, ...]) -> Any:
    if not path:
        text = disguised(str(value))
        return text if isinstance(value, str) else type(value)(disguised(str(value), digits_only=True))
    step, rest = path[0], path[1:]
    if isinstance(value, dict):
        return {name: _disguised_at(each, rest) if name == step else each for name, each in value.items()}
    return [_disguised_at(each, rest) if index == step else each for index, each in enumerate(value)]


def _unfit(subject: Subject, cassette: Cassette) -> list[str]:
    sides = [("request", cassette.request)] + ([("reply", cassette.reply)] if cassette.reply is not None else [])
    return [
        f"the {side} does not fit its schema at {fault.pointer or '/'}"
        for side, body in sides
        for fault in subject.schemas[f"{cassette.service}/{side}"].faults(body)
    ]
