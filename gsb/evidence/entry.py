"""Entries: what the evidence log says of an act, and the commitment to what it must not say.

Pure. An entry names parties, service, times and codes; everything that may be personal (the request's JWS, digests
of bodies, the decision, a core system's own words) is evidence: it stays in the store, and the entry holds only
``commit`` = HMAC-SHA256 over the evidence under 32 random bytes. Erasing those bytes leaves every proof valid
and the commitment meaningless. An unsalted digest of personal data would not do: it can be guessed.
"""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Mapping, Sequence

import orjson

from gsb.evidence.merkle import leaf_hash
from gsb.evidence.tiles import ENTRY_LIMIT
from gsb.model import Entry, timestamp

VERSION = 1

Fact = str | int | None | Sequence[str]


def canonical(value: object) -> bytes:
    """JSON in the form of RFC 8785, for values of strings, integers, lists and mappings with ASCII names."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def commitment(salt: bytes, evidence: bytes) -> str:
    """base64url HMAC-SHA256 of the evidence under its 32 random bytes."""
    mac = hmac.digest(salt, evidence, "sha256")
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def make_entry(kind: str, at: float, facts: Mapping[str, Fact], evidence: Mapping[str, object]) -> Entry:
    """An entry of this kind.

    ``facts`` (None is left out) are public to every auditor and must hold no personal value; ``evidence`` is
    whatever proves the act and is committed to, not shown. Raises ValueError beyond 65,535 bytes.
    """
    salt = os.urandom(32)
    proof = canonical(evidence)
    content = canonical(
        {name: value for name, value in facts.items() if value is not None}
        | {"v": VERSION, "kind": kind, "at": timestamp(at), "commit": commitment(salt, proof)}
    )
    if len(content) > ENTRY_LIMIT:
        raise ValueError(f"an entry of kind {kind} has {len(content)} bytes, more than {ENTRY_LIMIT}")
    return Entry(content, leaf_hash(content), salt + proof)
