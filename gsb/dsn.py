"""The connection URI of a PostgreSQL: read from its file and judged, never shown.

It holds a password, so nothing here repeats any part of it. Nothing is connected to; a crash is a defect of this
module.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import SplitResult, parse_qs, urlsplit

from gsb.forms import is_loopback

PROTECTED = ("verify-full", "disable")
"""Ways to say how the way to another machine is protected: by TLS with a name that was checked, or by something else.
Whatever lies between them can be talked out of it by who sits on the way."""

FOLDER = ("/", "%2F", "%2f")
"""How a host begins that is a folder with a socket in it."""


class DsnUnfit(Exception):
    """A file that holds no connection URI that may be used; the text says why, and nothing of what is in it."""


def read_dsn(path: Path) -> str:
    """The URI in a file. Raises DsnUnfit."""
    try:
        dsn = path.read_text("utf-8").strip()
        parts = urlsplit(dsn)
    except OSError as error:
        raise DsnUnfit(f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise DsnUnfit("must be one line with a URI: postgresql://user:password@host/database") from None
    if parts.scheme not in ("postgresql", "postgres") or len(dsn.split()) != 1:
        raise DsnUnfit("must be one line with a URI: postgresql://user:password@host/database")
    asked = parse_qs(parts.query)
    if not all(_on_this_machine(host) for host in _hosts(parts)) and asked.get("sslmode", [""])[-1] not in PROTECTED:
        raise DsnUnfit(
            "names another machine and must say sslmode=verify-full (with sslrootcert=), or sslmode=disable where "
            "something else protects the way"
        )
    return dsn


def hosts(dsn: str) -> list[str]:
    """The machines that a URI names, by name or address; a socket in a folder is none."""
    return [host for host in _hosts(urlsplit(dsn)) if not host.startswith(FOLDER)]


def _hosts(parts: SplitResult) -> list[str]:
    """Every host that is named, without its port; those in the query count instead of those before the path."""
    named = ",".join(parse_qs(parts.query).get("host", [])) or parts.netloc.rpartition("@")[2]
    return [_without_port(each) for each in named.split(",") if each]


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host if host.startswith("/") else host.partition(":")[0]


def _on_this_machine(host: str) -> bool:
    return host.startswith(FOLDER) or is_loopback(host)
