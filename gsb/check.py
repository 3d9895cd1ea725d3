"""``gsb check`` as a function: is this deployment right? The same code that a node runs at its start."""

from __future__ import annotations

from pathlib import Path

from gsb.catalogue import ConfigInvalid, build
from gsb.load import Finding

__all__ = ["Finding", "check"]


def check(folder: Path) -> list[Finding]:
    """Every problem at once, in the order of files; empty when a node would start. Raises OSError without a folder."""
    try:
        build(folder)
    except ConfigInvalid as error:
        return error.findings
    return []
