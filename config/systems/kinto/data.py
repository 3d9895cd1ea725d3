"""What the registries hold from the beginning, and the schemas to which Kinto itself keeps them. No I/O.

The people and businesses are invented. Amounts are decimal strings there too, since Kinto keeps whatever it is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Record = Mapping[str, Any]

TEXT = {"type": "string", "minLength": 1, "maxLength": 200}
DATE = {"type": "string", "format": "date", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}
AMOUNT = {"type": "string", "pattern": r"^(0|[1-9][0-9]{0,14})\.[0-9]{2}$"}
CURRENCY = "XOF"


def _schema(required: Mapping[str, Any], optional: Mapping[str, Any]) -> dict[str, Any]:
    members = {**required, **optional}
    return {"type": "object", "required": [*required], "properties": members, "additionalProperties": False}


BUSINESS = _schema(
    {
        "brn": {"type": "string", "pattern": "^BRN-[0-9]{6}$"},
        "name": TEXT,
        "status": {"enum": ["ACTIVE", "STRUCK_OFF"]},
    },
    {"tin": TEXT, "registered_on": DATE, "exchange": TEXT},
)
"""``exchange`` is the reference under which a registration arrived."""
PERSON = _schema(
    {"national_id": TEXT, "given_name": TEXT, "family_name": TEXT, "birth_date": DATE},
    {"died_on": DATE},
)
PROJECT = _schema(
    {
        "code": {"type": "string", "pattern": "^PIP-[0-9]{4}$"},
        "title": TEXT,
        "ministry": {"type": "string", "pattern": "^[A-Z]{3}$"},
        "status": {"enum": ["APPRAISED", "APPROVED", "ONGOING", "COMPLETED", "SUSPENDED"]},
        "budget": AMOUNT,
        "spent": AMOUNT,
        "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
        "begins_on": DATE,
        "ends_on": DATE,
    },
    {"manager": TEXT},
)
DISBURSEMENT = _schema(
    {
        "reference": {"type": "string", "pattern": "^DSB-[0-9]{6}$"},
        "project": {"type": "string", "pattern": "^PIP-[0-9]{4}$"},
        "payee": TEXT,
        "amount": AMOUNT,
        "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
        "status": {"enum": ["REQUESTED", "APPROVED", "PAID", "REJECTED"]},
        "requested_on": DATE,
    },
    {"paid_on": DATE, "officer": TEXT},
)
RELEASE = {
    "type": "object",
    "required": ["ocid", "package"],
    "properties": {"ocid": {"type": "string", "pattern": "^ocds-213czf-"}, "package": {"type": "object"}},
}
"""A package of open contracting data with one release; the prefix is the one that the standard uses in examples."""

BUSINESSES: tuple[Record, ...] = (
    {"brn": "BRN-000001", "name": "Karité SARL", "status": "ACTIVE", "tin": "TIN-1001", "registered_on": "2014-03-17"},
    {"brn": "BRN-000002", "name": "شركة النخيل للبناء", "status": "ACTIVE", "tin": "TIN-1002"},
    {"brn": "BRN-000003", "name": "Diallo & fils", "status": "STRUCK_OFF", "registered_on": "1998-11-02"},
)
PERSONS: tuple[Record, ...] = (
    {"national_id": "N-000000001", "given_name": "Adjoua", "family_name": "N'Guessan", "birth_date": "1984-03-02"},
    {"national_id": "N-000000002", "given_name": "عبد الرحمن", "family_name": "بن علي", "birth_date": "1971-12-30"},
    {
        "national_id": "N-000000003",
        "given_name": "Ndèye Fatou",
        "family_name": "Sow",
        "birth_date": "1950-07-14",
        "died_on": "2019-01-05",
    },
)
_ROAD = {"ministry": "MOT", "currency": CURRENCY, "begins_on": "2025-01-01", "ends_on": "2027-12-31"}
PROJECTS: tuple[Record, ...] = (
    {
        **_ROAD,
        "code": "PIP-0001",
        "title": "Rural roads, phase 2",
        "status": "ONGOING",
        "budget": "1250000000.00",
        "spent": "412500000.50",
        "manager": "A. Sow",
    },
    {
        **_ROAD,
        "code": "PIP-0002",
        "title": "Bridge at Kénédougou",
        "status": "APPROVED",
        "budget": "90000000.00",
        "spent": "0.00",
    },
)
_PAYMENT = {"project": "PIP-0001", "payee": "BRN-000001", "currency": CURRENCY, "requested_on": "2026-08-03"}
DISBURSEMENTS: tuple[Record, ...] = (
    {**_PAYMENT, "reference": "DSB-000001", "amount": "12500000.50", "status": "PAID", "paid_on": "2026-08-21"},
    {**_PAYMENT, "reference": "DSB-000002", "amount": "400000.00", "status": "REQUESTED", "officer": "K. Ehui"},
)


class Collection(NamedTuple):
    """One list of records, and who may read it; ``key`` is the member that is a record's id."""

    bucket: str
    name: str
    key: str
    schema: dict[str, Any]
    records: tuple[Record, ...]
    account: str
    creates: bool = False
    """Whether the account may add records, too."""


COLLECTIONS = (
    Collection("registry", "businesses", "brn", BUSINESS, BUSINESSES, "gsb", creates=True),
    Collection("registry", "persons", "national_id", PERSON, PERSONS, "gsb"),
    Collection("pim", "projects", "code", PROJECT, PROJECTS, "pim"),
    Collection("pim", "disbursements", "reference", DISBURSEMENT, DISBURSEMENTS, "pim"),
    Collection("procurement", "releases", "id", RELEASE, (), "procurement", creates=True),
)
