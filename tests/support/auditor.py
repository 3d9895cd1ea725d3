"""Reads a log from its files as an auditor would, and believes nothing that it can compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from gsb.evidence.checkpoint import Checkpoint, Verifier, open_checkpoint
from gsb.evidence.log import CHECKPOINT, Files
from gsb.evidence.merkle import leaf_hash, root_of
from gsb.evidence.tiles import WIDTH, bundle_path, unpack
from gsb.evidence.verify import verify_log


def contents_of(folder: Path, verifier: Verifier) -> list[bytes]:
    """The entries of the log in this folder, after it was verified whole."""
    verified = verify_log(Files(folder).read, verifier, paths=paths_of(folder))
    size = verified.checkpoint.size
    widths = [min(WIDTH, size - first) for first in range(0, size, WIDTH)]
    paths = [bundle_path(number, width) for number, width in enumerate(widths)]
    return [content for path in paths for content in unpack((folder / path).read_bytes())]


def paths_of(folder: Path) -> list[str]:
    """Every file but those that a recorder that was interrupted leaves behind."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return sorted(path.relative_to(folder).as_posix() for path in found)


def checkpoint_of(folder: Path, verifier: Verifier) -> Checkpoint:
    return open_checkpoint((folder / CHECKPOINT).read_bytes(), verifier)


def root_after(contents: list[bytes], size: int) -> bytes:
    assert len(contents) >= size
    return root_of([leaf_hash(content) for content in contents[:size]])


def said(contents: list[bytes]) -> list[dict[str, Any]]:
    """What the entries say."""
    return [orjson.loads(content) for content in contents]
