"""Cassettes: one exchange with a core system as data: what was asked, what the system was sent and said, how it ended.

A cassette is a JSON file beside its adapter. It is an example of the contract suite, where a real server plays it, and
a regression test, where it is replayed without any socket. Nothing is judged here, and nothing recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gsb.model import Request
from gsb.sdk.errors import Broken, Refused


class Played(BaseModel):
    """One call of the adapter on its system, and the answer. Bodies are JSON, or else text."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    method: str
    path: str = Field(pattern=r"^/")
    """Path and query, as they were sent."""
    content: Any = None
    """What was sent, if it was JSON."""
    content_text: str | None = None
    """What was sent, if it was anything else."""
    status: int = Field(default=200, ge=200, le=599)
    headers: dict[str, str] = {}
    answer: Any = None
    answer_text: str | None = None
    acts: bool = False
    """Whether something takes effect by it. If no call of an example is marked so, each of them counts as one."""

    @property
    def body(self) -> bytes:
        """The answer as it is sent."""
        if self.answer_text is not None:
            return self.answer_text.encode()
        return b"" if self.answer is None else orjson.dumps(self.answer)

    def same(self, content: bytes) -> bool:
        """Whether exactly this was sent."""
        if self.content_text is not None:
            return content == self.content_text.encode()
        return bool(parsed(content) == self.content)


class Step(BaseModel):
    """One call of another service of the bus, by an adapter whose services are composed of others."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    step: str
    """Its name, as the adapter gives it."""
    service: str
    request: Any
    reply: Any = None
    refused: str | None = None
    """The code with which the other system said no, instead of a reply."""


class Cassette(BaseModel):
    """One exchange."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    note: str = ""
    """Where it comes from: written by hand, or recorded when and with which version of the system."""
    service: str
    exchange: str = "01990000-0000-7000-8000-000000000001"
    agency: str = "payroll"
    purpose: str = "payroll"
    sub: str | None = None
    case: str | None = None
    at: float = 1_790_000_000.0
    """The time on the adapter's clock, in seconds since the epoch."""
    request: Any
    reply: Any = None
    refused: str | None = None
    """The code with which the system said no, instead of a reply."""
    calls: tuple[Played, ...] = ()
    """In their order. Empty for an adapter that does not speak HTTP."""
    steps: tuple[Step, ...] = ()
    """Other services that it uses; in any order, since each has its name."""

    @model_validator(mode="after")
    def _one_outcome(self) -> Self:
        if (self.reply is None) == (self.refused is None):
            raise ValueError("a cassette has a reply, or the code with which it was refused")
        return self

    def asked(self, deadline: float = 0.0) -> Request:
        """What the bus asks the adapter."""
        return Request(
            exchange=self.exchange,
            agency=self.agency,
            service=self.service,
            body=self.request,
            purpose=self.purpose,
            sub=self.sub,
            case=self.case,
            deadline=deadline,
        )

    def document(self) -> bytes:
        """As it lies in its file."""
        members = self.model_dump(mode="json", exclude_defaults=True)
        return orjson.dumps(members, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


class Tape:
    """Plays the calls of cassettes: to each request the next one that is the same, or else the next with this method
    and path; and the last one again and again."""

    def __init__(self, cassettes: Iterable[Cassette]) -> None:
        self._calls: dict[tuple[str, str], list[Played]] = {}
        for cassette in cassettes:
            for call in cassette.calls:
                self._calls.setdefault((call.method, call.path), []).append(call)
        self._played: Counter[tuple[str, str]] = Counter()
        self._again: Counter[tuple[str, str, bytes]] = Counter()
        self.unknown: list[str] = []
        """Requests that no cassette holds."""
        self.other: list[str] = []
        """Requests that a cassette holds with another content."""

    def play(self, method: str, path: str, content: bytes) -> Played | None:
        calls = self._calls.get((method, path))
        if calls is None:
            self.unknown.append(_shown(method, path))
            return None
        number = self._played[method, path]
        self._played[method, path] += 1
        # Where all calls go to one path, only their contents tell them apart.
        same = [call for call in calls if call.same(content)]
        if not same:
            self.other.append(_shown(method, path))
            return calls[min(number, len(calls) - 1)]
        again = self._again[method, path, content]
        self._again[method, path, content] += 1
        return same[min(again, len(same) - 1)]

    @property
    def unplayed(self) -> list[str]:
        """Calls that nobody made."""
        return [_shown(*key) for key, calls in self._calls.items() if self._played[key] < len(calls)]


class Steps:
    """Plays the steps of cassettes: the adapter's ``call`` (``gsb.sdk.adapter.Call``)."""

    def __init__(self, cassettes: Iterable[Cassette]) -> None:
        self._steps = [step for each in cassettes for step in each.steps]

    async def __call__(self, request: Request, service: str, body: Any, *, step: str, purpose: str) -> Any:
        asked = (step, service, body)
        found = next((each for each in self._steps if (each.step, each.service, each.request) == asked), None)
        if found is None:
            raise Broken(f"no cassette holds the step {step} of {service} with this request")
        if found.refused is not None:
            raise Refused(found.refused)
        return found.reply


def _shown(method: str, path: str) -> str:
    """A call without its query, which may hold anything."""
    return f"{method} {path.partition('?')[0]}"


def parsed(content: bytes) -> Any:
    """JSON, or None for an empty or another body."""
    try:
        return orjson.loads(content) if content else None
    except orjson.JSONDecodeError:
        return None


def read_cassettes(folder: Path, pattern: str = "*.json") -> Mapping[str, Cassette]:
    """Those in a folder, by the name of their file. Raises OSError, or ValueError naming the file."""
    found = {}
    for path in sorted(folder.glob(pattern)):
        try:
            found[path.stem] = Cassette.model_validate_json(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return found
