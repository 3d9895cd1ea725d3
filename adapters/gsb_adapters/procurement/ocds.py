"""Releases, packages and records of the Open Contracting Data Standard 1.1, made of what the bus carries. No I/O.

Amounts are decimal strings on the bus and numbers in the standard, and ``Decimal`` in between: never a float. Releases
are merged by ``ocdsmerge``, with the rules below, since left to itself it would fetch them from the standard's site.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from ocdsmerge import Merger

from gsb.sdk import decimal_string

PLACES = 2
"""Of amounts on the bus."""

_ORGANIZATIONS = (
    *("buyer", "parties", "tender/procuringEntity", "tender/tenderers", "awards/suppliers"),
    *("contracts/implementation/transactions/payer", "contracts/implementation/transactions/payee"),
)
_STAGES = ("tender", "awards", "contracts")
_WHOLE_LISTS = (
    *("parties/roles", "relatedProcesses/relationship", "contracts/relatedProcesses/relationship"),
    *("tender/submissionMethod", "tender/additionalProcurementCategories"),
    *(f"{each}/additionalIdentifiers" for each in _ORGANIZATIONS),
    *(f"{each}/items/additionalClassifications" for each in _STAGES),
    *(f"{each}/{name}/changes" for each in _STAGES for name in ("amendment", "amendments")),
)
RULES: dict[tuple[str, ...], str] = {
    **{(name,): "omitWhenMerged" for name in ("id", "date", "tag")},
    **{tuple(path.split("/")): "wholeListMerge" for path in _WHOLE_LISTS},
}
"""The merging rules of the release schema of OCDS 1.1.5 ("Merging", standard.open-contracting.org/1.1/en/schema)."""


def release(ocid: str, exchange: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The release of one exchange: the same at every try, since its date is the moment at which the bus took it."""
    made = {"ocid": ocid, "id": exchange, "date": accepted(exchange), "initiationType": "tender"}
    return made | {name: _numbered(value) for name, value in body.items() if name != "process"}


def package(uri: str, publisher: str, releases: list[dict[str, Any]]) -> dict[str, Any]:
    """A release package, as the standard wants releases to be published."""
    shared = {"uri": uri, "version": "1.1", "publisher": {"name": publisher}}
    return shared | {"publishedDate": max(each["date"] for each in releases), "releases": releases}


def record(packages: Iterable[Mapping[str, Any]], *, versioned: bool) -> dict[str, Any]:
    """The record of one process with linked releases. Raises KeyError and TypeError for what are no releases."""
    pairs = [(each, pack["uri"]) for pack in packages for each in pack["releases"]]
    pairs.sort(key=lambda pair: (pair[0]["date"], pair[0]["id"]))
    releases, merger = [each for each, _ in pairs], Merger(merge_rules=RULES)
    made = {
        "ocid": releases[0]["ocid"],
        "releases": [{"url": f"{uri}#{each['id']}", "date": each["date"], "tag": each["tag"]} for each, uri in pairs],
        "compiledRelease": merger.create_compiled_release(releases),
    }
    return made | ({"versionedRelease": merger.create_versioned_release(releases)} if versioned else {})


def told(packages: list[Mapping[str, Any]], *, versioned: bool) -> Any:
    """The record as the bus carries it. Raises what ``record`` raises, and ValueError where an id stands twice."""
    if ids_repeat(packages):
        raise ValueError("two things in one list have the same id")
    return on_bus(record(packages, versioned=versioned))


def accepted(exchange: str) -> str:
    """The time in a UUIDv7 (RFC 9562, section 5.7), in milliseconds and UTC."""
    when = datetime.fromtimestamp((UUID(exchange).int >> 80) / 1000, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def currencies(value: Any) -> set[str]:
    """In which currencies amounts stand there."""
    amounts = (each for each in _everything(value) if isinstance(each, dict) and isinstance(each.get("amount"), str))
    return {each["currency"] for each in amounts if "currency" in each}


def ids_repeat(value: Any) -> bool:
    """Whether two objects in one list have the same id: merging would make one of them."""
    lists = (each for each in _everything(value) if isinstance(each, list))
    ids = ([str(each["id"]) for each in one if isinstance(each, dict) and "id" in each] for one in lists)
    return any(len(one) != len(set(one)) for one in ids)


def on_bus(value: Any, name: str = "") -> Any:
    """The same with every amount as a decimal string; in a versioned release it stands in ``value``, one level down."""
    match value:
        case int() | Decimal() if name == "amount":
            return decimal_string(value, PLACES)
        case Decimal():
            return format(value, "f")
        case dict():
            return {each: on_bus(part, name if each == "value" else each) for each, part in value.items()}
        case list():
            return [on_bus(part, name) for part in value]
    return value


def _numbered(value: Any) -> Any:
    match value:
        case {"amount": str(amount), "currency": str()}:
            return {**value, "amount": Decimal(amount)}
        case dict():
            return {name: _numbered(part) for name, part in value.items()}
        case list():
            return [_numbered(part) for part in value]
    return value


def _everything(value: Any) -> Iterator[Any]:
    """It, and whatever is in it."""
    yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _everything(part)
