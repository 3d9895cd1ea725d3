"""The forms of what stands in configuration files: ids, names, addresses, files, and what all tables have in common.

It knows no file and no setting; ``gsb.config`` and ``gsb.witness.settings`` are made of it. Only text is judged here,
nothing is opened; a crash is a defect of this module.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

ID = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
"""Ids of agencies, operators, systems, services and agreements: they stand in URLs and file names."""
Id = Annotated[str, Field(pattern=ID, max_length=64)]
SERVICE = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*/[a-z][a-z0-9]*(-[a-z0-9]+)*/v[1-9][0-9]{0,3}$"
ServiceId = Annotated[str, Field(pattern=SERVICE, max_length=140)]


BUSINESS_KEY = r"^(/([^/~*]|~[01])+)+$"
"""A JSON Pointer (RFC 6901) of one member; ``*`` would be many."""

ORIGIN = r"^[a-z0-9.:-]+(/[A-Za-z0-9._~-]+)*$"
"""What the evidence log may be called: a URL without its scheme (c2sp.org/tlog-checkpoint); no space and no plus, which
part the name of a key from the key (c2sp.org/signed-note)."""


def _in_folder(path: Path, info: ValidationInfo) -> Path:
    return Path((info.context or {}).get("folder", Path())) / path


File = Annotated[Path, AfterValidator(_in_folder)]
"""A path; with ``context={"folder": Path}`` a relative one starts there."""


def _base_url(url: str) -> str:
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}"
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("a base URL is http:// or https:// and a host, perhaps with a port")
    if parts.username is not None or parts.query or parts.fragment or url.endswith(("/", "?", "#")):
        raise ValueError("a base URL has no user, query, fragment or slash at its end")
    if not re.fullmatch("[!-~]+", url) or not url.startswith(origin) or origin != origin.lower():
        raise ValueError("a base URL is visible ASCII, with scheme and host in lower case")
    return url


BaseUrl = Annotated[str, AfterValidator(_base_url)]
"""A URL to which the paths of the wire profile are appended as they are, so its form matters byte for byte."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
