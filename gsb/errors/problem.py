"""What problems have in common, and the table of their stable codes.

The class keywords are the public contract (``code``, ``status``, ``origin``); the first line of the docstring is
the problem's title and the rest tells the caller what to do. The manual and the API description are made
from ``TABLE``, so a code that is not here does not exist. Shape on the wire: RFC 9457.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Origin = Literal["consumer", "bus", "provider"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in a body: where (JSON Pointer, RFC 6901; empty for the whole) and what, never the value."""

    pointer: str
    detail: str


TABLE: dict[str, type[Problem]] = {}
"""Every problem by its code, in the order of definition."""


class Problem(Exception):
    """Something went wrong that a caller is told about.

    ``detail`` must hold no personal value. ``faults`` are the places in the body; ``headers`` are added to the
    HTTP answer; ``extra`` are further members of the problem document.
    """

    code: ClassVar[str]
    status: ClassVar[int]
    origin: ClassVar[Origin]
    title: ClassVar[str]
    advice: ClassVar[str]

    def __init_subclass__(cls, *, code: str, status: int, origin: Origin = "consumer") -> None:
        super().__init_subclass__()
        first, _, rest = inspect.cleandoc(cls.__doc__ or "").partition("\n")
        cls.code, cls.status, cls.origin, cls.title, cls.advice = code, status, origin, first, rest.strip()
        if code in TABLE or not first or not cls.advice:
            raise TypeError(f"problem {code!r} needs its own code, a title and an advice")
        TABLE[code] = cls

    def __init__(
        self,
        detail: str = "",
        *,
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.faults = tuple(faults)
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})
