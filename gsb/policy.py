"""Agreements: who may ask for what, decided purely and denied by default; and what of a reply may leave the bus.

A ``Policy`` is a frozen look-up made from a checked configuration; it keeps no state, reads no clock and does no I/O,
so the same question at the same time always gets the same answer. It does not know keys, rates or schemas.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import is_
from types import MappingProxyType
from typing import Any

from gsb.config import Rate
from gsb.errors import (
    AgreementNotInForce,
    CaseRequired,
    ClaimMissing,
    GrantMissing,
    PurposeNotGranted,
    SubRequired,
)


@dataclass(frozen=True, slots=True)
class Grant:
    """One thing that an agreement allows one consumer. Times are seconds since the epoch."""

    agreement: str
    agreement_digest: str
    """SHA-256 of the agreement's file, in hex: what ``sha256sum`` prints of it."""
    consumer: str
    provider: str
    service: str
    purpose: str
    fields: tuple[str, ...]
    """Reply fields that may leave: JSON Pointers, ``*`` for every item of an array, ``""`` for the whole."""
    rate: Rate | None
    sub: bool
    case: bool
    valid_from: float
    valid_until: float
    """The first moment at which it is no longer in force."""
    suspended: bool

    def in_force(self, now: float) -> bool:
        return not self.suspended and self.valid_from <= now < self.valid_until


class Policy:
    """Every grant of a deployment."""

    def __init__(self, grants: Iterable[Grant]) -> None:
        by_pair: dict[tuple[str, str], list[Grant]] = {}
        by_name: dict[tuple[str, str, str, str], Grant] = {}
        by_agency: dict[str, list[Grant]] = {}
        for grant in grants:
            by_pair.setdefault((grant.consumer, grant.service), []).append(grant)
            by_agency.setdefault(grant.consumer, []).append(grant)
            by_name[grant.agreement, grant.consumer, grant.service, grant.purpose] = grant
        self._by_pair: Mapping[tuple[str, str], tuple[Grant, ...]] = _frozen(by_pair)
        self._by_agency: Mapping[str, tuple[Grant, ...]] = _frozen(by_agency)
        self._by_name = MappingProxyType(by_name)
        self._agreements = frozenset(name for name, *_ in by_name)

    def decide(
        self, agency: str, service: str, purpose: str | None, sub: str | None, case: str | None, now: float
    ) -> Grant:
        """The one grant that allows this, or the reason why none does.

        Raises ClaimMissing (purpose), GrantMissing, PurposeNotGranted, AgreementNotInForce, SubRequired or
        CaseRequired, in this order.
        """
        if purpose is None:
            raise ClaimMissing("A call to a service states its purpose.", extra={"claim": "purpose"})
        of_service = self._by_pair.get((agency, service), ())
        if not of_service:
            raise GrantMissing
        of_purpose = [grant for grant in of_service if grant.purpose == purpose]
        if not of_purpose:
            raise PurposeNotGranted
        in_force = [grant for grant in of_purpose if grant.in_force(now)]
        if not in_force:
            raise AgreementNotInForce(extra={"agreement": of_purpose[-1].agreement})
        grant = in_force[0]
        if grant.sub and not sub:
            raise SubRequired(extra={"agreement": grant.agreement})
        if grant.case and not case:
            raise CaseRequired(extra={"agreement": grant.agreement})
        return grant

    def grant(self, agreement: str, agency: str, service: str, purpose: str) -> Grant | None:
        """The grant by which an agency's exchange was decided, in force or not; None when it has none of that name."""
        return self._by_name.get((agreement, agency, service, purpose))

    def knows(self, agreement: str) -> bool:
        """Whether there is an agreement of this id, in force or not."""
        return agreement in self._agreements

    def grants_of(self, agency: str) -> Sequence[Grant]:
        """Every grant that this consumer has, in force or not, in the order of their agreements."""
        return self._by_agency.get(agency, ())


def _frozen(lists: Mapping[Any, list[Grant]]) -> Mapping[Any, tuple[Grant, ...]]:
    return MappingProxyType({key: tuple(grants) for key, grants in lists.items()})


# --- granted fields

EVERYTHING = None
"""A place in a tree of fields from which everything is granted."""
FieldTree = dict[str, Any]
_NOTHING = object()


@lru_cache(maxsize=4096)
def field_tree(fields: tuple[str, ...]) -> FieldTree | None:
    """Fields as a tree of tokens, in which ``EVERYTHING`` grants everything below. Not to be changed: it is kept."""
    root: FieldTree = {}
    for field in fields:
        if field == "":
            return EVERYTHING
        tokens = _tokens(field)
        place = root
        for token in tokens[:-1]:
            # A wider field that was met before stays; the narrower one below it adds nothing.
            below = place.setdefault(token, {})
            if below is EVERYTHING:
                break
            place = below
        else:
            place[tokens[-1]] = EVERYTHING
    return root


def _tokens(field: str) -> list[str]:
    """RFC 6901, section 4."""
    return [token.replace("~1", "/").replace("~0", "~") for token in field.split("/")[1:]]


def cut(value: Any, fields: Sequence[str]) -> Any:
    """A value with nothing but the granted fields: the value itself if it has nothing else, or a copy.

    ``*`` means every item where the value is an array, and only there; elsewhere it is an ordinary name. What is not
    granted is left out, from arrays too; a value of which nothing at all is granted becomes None.
    """
    if isinstance(value, dict) and value.keys() <= _whole(tuple(fields)):
        return value  # as most replies are: nothing in it is to be left out
    kept = _cut(value, field_tree(tuple(fields)))
    return None if kept is _NOTHING else kept


@lru_cache(maxsize=4096)
def _whole(fields: tuple[str, ...]) -> frozenset[str]:
    """The members of an object that are granted with everything below them, each by its name."""
    tree = field_tree(fields)
    return frozenset() if tree is EVERYTHING else frozenset(name for name, below in tree.items() if below is EVERYTHING)


def _cut(value: Any, tree: FieldTree | None) -> Any:
    if tree is EVERYTHING:
        return value
    if isinstance(value, dict):
        granted = {}
        for name, each in value.items():
            below = tree.get(name, _NOTHING)
            kept = each if below is EVERYTHING else _NOTHING if below is _NOTHING else _cut(each, below)
            if kept is not _NOTHING:
                granted[name] = kept
        return value if _same(granted.values(), value.values()) else granted
    if isinstance(value, list) and "*" in tree:
        items = [kept for kept in (_cut(each, tree["*"]) for each in value) if kept is not _NOTHING]
        return value if _same(items, value) else items
    return _NOTHING


def _same(kept: Collection[Any], values: Collection[Any]) -> bool:
    """Whether all that there was is kept as it was; both have the same order."""
    return len(kept) == len(values) and all(map(is_, kept, values))


def released(value: Any, fields: Sequence[str]) -> tuple[str, ...]:
    """Those of the granted fields that a value has: names only, for the record of what left the bus."""
    return tuple([field for field, path in _paths(tuple(fields)) if _has(value, path)])


@lru_cache(maxsize=4096)
def _paths(fields: tuple[str, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((field, tuple(_tokens(field))) for field in fields)


def _has(value: Any, path: tuple[str, ...]) -> bool:
    for at, name in enumerate(path):
        if isinstance(value, list):
            return name == "*" and any(_has(each, path[at + 1 :]) for each in value)
        if not isinstance(value, dict) or name not in value:
            return False
        value = value[name]
    return True
