"""What adapters for systems with a JSON interface share: signing in, reading answers, pauses that a system asks for.

It sends nothing, and keeps nothing but the end of a pause. Whatever an answer lacks makes it ``Broken``.
"""

from __future__ import annotations

from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from pydantic import Field

from gsb.sdk import Broken, Clock, HttpReply, HttpSettings, SecretFile, Unavailable, basic

LONGEST_PAUSE = 300.0
"""Seconds of a pause that are believed: one answer with a mistake in it must not shut a system out for good."""


class BasicSettings(HttpSettings):
    """Base of the settings of an adapter that signs in by Basic authentication (RFC 7617)."""

    user: str = Field(min_length=1, pattern=r"^[^:]+$")
    """The bus's user, or account, in the system."""
    password: SecretFile
    """File with the user's password."""

    def signed_in(self) -> dict[str, str]:
        """The header. Raises ``Unavailable`` if the password's file cannot be read."""
        return basic(self.user, self.password.read())


class Pause:
    """What a system asked for in any of its answers, also a good one. All calls of an adapter heed it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = 0.0
        """By the steady clock."""

    def respect(self) -> None:
        """Raises ``Unavailable`` as long as it lasts."""
        if (left := self._until - self._clock.steady()) > 0:
            raise Unavailable("the system asked for a pause", sent=False, after=left)

    def heed(self, answer: HttpReply, header: str) -> None:
        """Begin one, or make it longer, if the answer asks for so many seconds by this header."""
        if (wish := answer.after(header)) is not None:
            self._until = max(self._until, self._clock.steady() + min(wish, LONGEST_PAUSE))


def said_at(answer: HttpReply) -> datetime:
    """The time of the system's own clock (RFC 9110, section 6.6.1). Raises ``Broken`` if it does not say."""
    try:
        return parsedate_to_datetime(answer.headers.get("Date", ""))
    except ValueError as error:
        raise Broken("the answer does not say when it was given") from error


def members(value: Any) -> dict[str, Any]:
    """The value, which must be an object. Raises ``Broken``."""
    if not isinstance(value, dict):
        raise Broken("the answer has something else where an object should be")
    return value


def member(value: Any, name: str) -> Any:
    """A member that the value, an object, must have. Raises ``Broken``."""
    if name not in members(value):
        raise Broken(f"the answer has no {name}")
    return value[name]


def text(value: Any, name: str) -> str:
    """A member that must be a text. Raises ``Broken``."""
    found = member(value, name)
    if not isinstance(found, str):
        raise Broken(f"{name} is no text")
    return found


def items(value: Any, name: str) -> list[Any]:
    """A member that must be an array. Raises ``Broken``."""
    found = member(value, name)
    if not isinstance(found, list):
        raise Broken(f"{name} is no array")
    return found
