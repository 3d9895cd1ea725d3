"""Entries: canonical, bounded, committed to, and silent about everything personal."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest

from gsb.evidence.entry import commitment, make_entry
from gsb.evidence.merkle import leaf_hash
from gsb.evidence.tiles import ENTRY_LIMIT

EVIDENCE = {"request": "eyJ.canary-jws.sig", "note": "Amina Diallo"}


def test_an_entry_is_canonical_json_and_its_leaf_is_that_of_rfc_6962() -> None:
    entry = make_entry("accepted", 0.0, {"exchange": "x", "agency": "payroll", "fields": ("/a",)}, EVIDENCE)
    said = json.loads(entry.content)
    assert entry.content == json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    assert said["v"] == 1
    assert said["kind"] == "accepted"
    assert said["at"] == "1970-01-01T00:00:00.000Z"
    assert entry.leaf == hashlib.sha256(b"\0" + entry.content).digest() == leaf_hash(entry.content)


def test_the_leaf_hash_is_that_of_the_published_vector() -> None:
    # The leaf hash of the empty entry, as in the test vectors of RFC 6962's reference implementation.
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"


def test_the_commitment_opens_with_the_secret_and_with_nothing_else() -> None:
    entry = make_entry("accepted", 1.0, {}, EVIDENCE)
    salt, evidence = entry.secret[:32], entry.secret[32:]
    said = json.loads(entry.content)["commit"]
    expected = hmac.new(salt, evidence, hashlib.sha256).digest()
    assert said == base64.urlsafe_b64encode(expected).decode().rstrip("=")
    assert json.loads(evidence) == EVIDENCE
    assert commitment(salt, evidence + b" ") != said
    assert commitment(bytes(32), evidence) != said


def test_nothing_of_the_evidence_stands_in_the_entry() -> None:
    entry = make_entry("accepted", 1.0, {"agency": "payroll"}, EVIDENCE)
    for value in EVIDENCE.values():
        assert value.encode() not in entry.content
        assert hashlib.sha256(value.encode()).hexdigest().encode() not in entry.content


def test_the_same_act_twice_commits_differently() -> None:
    first, second = (make_entry("act", 1.0, {"operator": "olive"}, EVIDENCE) for _ in range(2))
    assert first.leaf != second.leaf


def test_absent_facts_are_left_out_and_too_many_are_refused() -> None:
    assert "case" not in json.loads(make_entry("act", 1.0, {"case": None}, {}).content)
    with pytest.raises(ValueError, match=str(ENTRY_LIMIT)):
        make_entry("act", 1.0, {"fields": ["/x" * 100] * 1_000}, {})
