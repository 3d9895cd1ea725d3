"""What an examination finds: of one thing whether it is well, what shows it, and what to do. Pure.

No secret and nothing of a person may stand in a text: what is shown of an error of somebody else's is its type, or its
text where that can only name addresses, files and reasons.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    """How bad it is."""

    WELL = "well"
    WARNING = "warning"
    """It works, and will not for long, or less safely than it could."""
    TROUBLE = "trouble"
    """The bus cannot do its work, or not all of it."""


@dataclass(frozen=True, slots=True)
class Found:
    """One finding. ``what`` is a word for the part and, after a colon, which of several."""

    what: str
    grade: Grade
    said: str
    do: str = ""
    """What to do about it; nothing where it is well."""


def well(what: str, said: str) -> Found:
    return Found(what, Grade.WELL, said)


def warning(what: str, said: str, do: str) -> Found:
    return Found(what, Grade.WARNING, said, do)


def trouble(what: str, said: str, do: str) -> Found:
    return Found(what, Grade.TROUBLE, said, do)
