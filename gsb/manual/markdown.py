"""Tables and text in Markdown, for the manuals. Pure: text in, text out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are Markdown already, in which only ``|`` is still to be escaped."""
    lines = [_line(cell.replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join([_line(head), "|---" * len(head) + "|", *lines])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def text(docstring: str) -> str:
    """A docstring as Markdown on one line: its literals stay literals, and nothing else of it is markup."""
    pieces = re.split("``(.*?)``", " ".join(docstring.split()))
    return "".join(
        f"`{piece}`" if place % 2 else re.sub(r"([*<\[\]`\\])", r"\\\1", piece) for place, piece in enumerate(pieces)
    )


def code(literal: str) -> str:
    return f"`{literal}`"
