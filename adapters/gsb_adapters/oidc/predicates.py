"""Answers instead of data: yes, no or unknown. Pure."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from gsb_adapters.oidc.settings import LEVELS, Level

DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
PARTIAL = re.compile(r"0000-.*|[0-9]{4}")
"""A date of birth without its year, or nothing else (OpenID Connect Core, section 5.1)."""


def held(value: bool | None) -> str:
    """The three answers."""
    return "unknown" if value is None else "yes" if value else "no"


def holds(said: Any, wanted: str) -> bool | None:
    """Whether one of the values (one text, or a list of them) is the wanted one; None if there are none."""
    values = [said] if isinstance(said, str) else said
    return wanted in values if isinstance(values, list) else None


def assured(said: Mapping[str, Any], wanted: Level, levels: Mapping[Level, list[str]]) -> bool | None:
    """Whether the citizen was recognised at this level or a higher one (``acr`` and ``amr``; OpenID Connect Core,
    section 2; RFC 8176). None if the issuer does not say how."""
    amr = said.get("amr")
    values = {each for each in [said.get("acr"), *(amr if isinstance(amr, list) else [])] if isinstance(each, str)}
    if not values:
        return None
    return any(values.intersection(levels.get(level, [])) for level in LEVELS[LEVELS.index(wanted) :])


def matches(asserted: str, claims: Mapping[str, Any], name: str) -> bool | None:
    """Whether the issuer holds this value of the claim. None if it holds none, has not verified it itself, or holds
    only a part of it."""
    value = claims.get(name)
    if not isinstance(value, str) or not value or claims.get(f"{name.removesuffix('_number')}_verified") is False:
        return None
    if DATE.fullmatch(asserted) and PARTIAL.fullmatch(value):
        return None
    return _plain(asserted) == _plain(value)


def _plain(text: str) -> str:
    """Case, spaces, the encoding of accents and the kind of apostrophe make no other person. Some issuers make claims
    with templates of web pages, so that N'Diaye comes as ``N&#39;Diaye``."""
    return " ".join(unicodedata.normalize("NFKC", html.unescape(text)).replace("\u2019", "'").casefold().split())
