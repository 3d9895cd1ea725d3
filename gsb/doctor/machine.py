"""The machine on which a node runs: its clock, its disks, and how many files the process may open.

A crash means nothing.
"""

from __future__ import annotations

import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gsb.backends import SqliteTable
from gsb.bus import CLOCK_OFF
from gsb.catalogue import Catalogue
from gsb.doctor.found import Found, trouble, warning, well

LEAST, LOW = 256 * 1024**2, 2 * 1024**3
"""Bytes free on a disk below which nothing may be left tomorrow, and below which it is time to look."""
SPARE = 256
"""Files that a node needs beside its connections."""


def clock(catalogue: Catalogue) -> Iterator[Found]:
    """Whether this machine's clock was set back behind what has been written here already."""
    store = catalogue.gsb.store
    places = [catalogue.gsb.log.path.glob("*/checkpoint")]
    if isinstance(store, SqliteTable):
        places.append(store.path.parent.glob(f"{store.path.name}*"))
    written = max((each.stat().st_mtime for paths in places for each in paths), default=0.0)
    if (back := written - time.time()) > CLOCK_OFF:
        yield trouble(
            "clock",
            f"it stands {back:.0f} s before what was written here last",
            "set it right (chrony, systemd-timesyncd): calls that cannot be told from replays are refused meanwhile",
        )
    else:
        yield well("clock", "it stands after all that was written here")


def disks(catalogue: Catalogue) -> Iterator[Found]:
    """Room, and the right to write, where this node writes."""
    store = catalogue.gsb.store
    places = {"log": catalogue.gsb.log.path}
    if isinstance(store, SqliteTable):
        places["store"] = store.path.parent
    for name, path in places.items():
        yield _disk(f"disk: {name}", _existing(path))


def _disk(what: str, folder: Path) -> Found:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        said = f"{folder} cannot be written: {error.strerror}"
        return trouble(what, said, "give it to the user that runs gsb serve, on a disk that takes writes")
    free = shutil.disk_usage(folder).free
    said = f"{free / 1024**3:.1f} GiB free at {folder}"
    if free < LEAST:
        return trouble(what, said, "make room, or nothing more is accepted: every exchange is written down first")
    if free < LOW:
        return warning(what, said, "make room, or shorten [retention]")
    return well(what, said)


def _existing(path: Path) -> Path:
    """The folder, or the first above it that is there: a node makes what is missing."""
    return next(each for each in (path, *path.parents) if each.is_dir())


def files(catalogue: Catalogue) -> Iterator[Found]:
    """Whether the process may open as many files as it takes connections."""
    wanted = catalogue.gsb.limits.connections + SPARE
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = f"a process started like this one may open {allowed} files, and a full node needs about {wanted}"
    if allowed in (resource.RLIM_INFINITY,) or allowed >= wanted:
        yield well("open files", said)
    else:
        yield warning("open files", said, "allow more (ulimit -n, LimitNOFILE=), or lower limits.connections")
