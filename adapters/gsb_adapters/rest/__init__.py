"""What adapters for systems with a JSON interface share: signing in by Basic authentication, and reading answers.

It sends nothing and keeps nothing. Whatever an answer lacks makes it ``Broken``.
"""

from __future__ import annotations

import base64
from typing import Any

from gsb.sdk import Broken, SecretFile, Unavailable


def basic(user: str, password: SecretFile) -> dict[str, str]:
    """The header of Basic authentication (RFC 7617). Raises ``Unavailable`` if the password's file cannot be read."""
    try:
        pair = f"{user}:{password.read()}".encode()
    except (OSError, UnicodeError) as error:
        raise Unavailable("the password's file cannot be read", sent=False) from error
    return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}


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
