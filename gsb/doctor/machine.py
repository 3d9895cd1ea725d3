"""The machine on which a node runs: its clock, its disks, and how many files the process may open.

A crash means nothing.
"""

from __future__ import annotations

import os
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
from gsb.roles import ALL, Role, Roles

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


def disks(catalogue: Catalogue, roles: Roles = ALL) -> Iterator[Found]:
    """Room, and the right to write, where this node writes; the right to read the log, where it does not."""
    store, log = catalogue.gsb.store, catalogue.gsb.log.path
    yield _disk("disk: log", _existing(log)) if Role.RECORDER in roles else _read(log)
    if isinstance(store, SqliteTable):
        yield _disk("disk: store", _existing(store.path.parent))


def _read(log: Path) -> Found:
    try:
        with os.scandir(log) as entries:
            next(entries, None)
    except FileNotFoundError:
        return well("disk: log", f"{log} is not there yet: a recorder makes it")
    except OSError as error:
        do = "let the user that runs gsb serve read it: beside it alone a node sees that its store is an old one"
        return trouble("disk: log", f"{log} cannot be read: {error.strerror}", do)
    return well("disk: log", f"{log} can be read; recorders alone write it")


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
