"""Where servers of tests may write: tests kill servers, not machines, and wait for no disk there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROOM = 2 << 30
"""Bytes that servers of tests may take."""


def in_memory() -> Path | None:
    """A large file system in memory, if there is one; else None."""
    memory = Path("/dev/shm")
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM
    return memory if roomy else None
