"""Keys and certificates: whether they count now, how long still, and who can read the private ones.

That they can be used at all is known: a deployment with a key that cannot be is not examined any further. A crash means
nothing.
"""

from __future__ import annotations

import asyncio
import ssl
import stat
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from gsb.backends import PostgresTable
from gsb.catalogue import Catalogue
from gsb.config import KeyFile, Tls
from gsb.doctor.found import Found, trouble, warning, well
from gsb.fetch import Unread, fetch
from gsb.jwk import KeyUnfit, read_set
from gsb.keys import Life
from gsb.sources import KeySetTable

SOON = 30 * 86_400.0
"""Seconds before its end in which a key or certificate should have a successor."""


def lives(catalogue: Catalogue, now: float | None = None) -> Iterator[Found]:
    """Of the bus and of each agency and operator whether a key of theirs counts, and for how long."""
    now = time.time() if now is None else now
    yield _living("keys: the bus", catalogue.gsb.bus.keys, now, "gsb keygen, then a further [[bus.keys]]")
    for kind, owners in (("agency", catalogue.agencies), ("operator", catalogue.operators)):
        for name, owner in owners.items():
            if owner.keys or getattr(owner, "jwks", None) is None:  # what they publish is told by itself
                yield _living(f"keys: {kind} {name}", owner.keys, now, "ask them for their next public key")


def _living(what: str, tables: Iterable[KeyFile], now: float, do: str) -> Found:
    tables = list(tables)
    if not tables:
        return well(what, "it has none, so it signs nothing")
    counting = [life for life in map(Life.of, tables) if life.accepted(now)]
    if not counting:
        return trouble(what, "no key counts now", do)
    ends = [life.until for life in counting]
    if any(end is None for end in ends):
        return well(what, "a key counts, without an end")
    last = max(end for end in ends if end is not None)
    said = f"the last key counts until {_day(last)}"
    return warning(what, said, do) if last < now + SOON else well(what, said)


async def hsm(catalogue: Catalogue) -> AsyncIterator[Found]:
    """Whether the keys of the bus that lie in an HSM sign, and are those that they should be."""
    for key in catalogue.bus_keys.in_hsm(time.time()):
        what = f"hsm: {key.label}"
        if (why := await key.look()) is None:
            yield well(what, "it signs, and is the key of its public file")
        else:
            yield trouble(what, why, "mend what [bus.hsm] and the label name; the node tries again by itself")


async def published(catalogue: Catalogue) -> AsyncIterator[Found]:
    """Whether the keys that agencies publish can be read from here, and used."""
    tables = {name: each.jwks for name, each in catalogue.agencies.items() if each.jwks is not None}
    for found in await asyncio.gather(*(_published(name, table) for name, table in tables.items())):
        yield found


async def _published(agency: str, table: KeySetTable) -> Found:
    what, do = f"key set: {agency}", "ask them; see the way there, its certificate and [jwks] of their file"
    try:
        read = await fetch(table.url, networks=table.networks, ca=table.ca, etag=None)
        keys, left_out = read_set(read.body or b"")
    except (KeyUnfit, Unread) as error:
        return trouble(what, f"{table.url} cannot be read: {error}", do)
    if left_out:
        return warning(what, f"{len(left_out)} keys are left out: {left_out[0]}", "ask them to publish what is fit")
    return well(what, f"{len(keys)} keys are published")


def secrets(catalogue: Catalogue, named: Iterable[Path]) -> Iterator[Found]:
    """Whether others on this machine can read what only the node should; ``named`` are the adapters' secret files."""
    table = catalogue.gsb
    own = [table.store.key, table.log.key, *table.log.former]
    own += [key.file for key in table.bus.keys if key.label is None]
    if table.bus.hsm is not None:
        own.append(table.bus.hsm.pin)
    if isinstance(table.store, PostgresTable):
        own.append(table.store.dsn)
    if isinstance(table.listen.tls, Tls):
        own.append(table.listen.tls.key)
    seen = [path if path.is_absolute() else catalogue.folder / path for path in (*own, *named)]
    open_ = sorted({str(path) for path in seen if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH)})
    if open_:
        yield warning("secrets", f"anybody on this machine can read {', '.join(open_)}", "chmod o-rwx, and renew them")
    else:
        yield well("secrets", f"{len(seen)} secret files, none of which everybody can read")


def certificate(catalogue: Catalogue, now: float | None = None) -> Iterator[Found]:
    """The gateway's certificate: whether it is in force, for how long, for which names, and whether its key is its."""
    tls = catalogue.gsb.listen.tls
    if not isinstance(tls, Tls):
        return
    path, now = catalogue.folder / tls.certificate, time.time() if now is None else now
    try:
        chain = x509.load_pem_x509_certificates(path.read_bytes())
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, catalogue.folder / tls.key)
    except (OSError, ValueError) as error:
        yield trouble("certificate", f"{path} and its key cannot be used: {error}", "name a PEM file with its own key")
        return
    yield from _chain(chain, now)
    names = _names(chain[0])
    hosts = [urlsplit(url).hostname or "" for url in catalogue.gsb.bus.base_urls]
    for host in hosts:
        if not any(_covers(name, host) for name in names):
            yield trouble("certificate", f"it is not for {host}", "have it issued for every host of bus.base_urls")


def _chain(chain: list[x509.Certificate], now: float) -> Iterator[Found]:
    do = "renew it, and reload"
    for lower, upper in pairwise(chain):
        if lower.issuer != upper.subject:
            yield trouble("certificate", "its chain is out of order", "put each certificate before that of its issuer")
        elif not _issued(lower, upper):
            said = f"its chain breaks: another key than that of {upper.subject.rfc4514_string()} has signed"
            yield trouble("certificate", said, "put the certificate there with which its issuer signs now")
    begin = max(each.not_valid_before_utc for each in chain)
    end = min(each.not_valid_after_utc for each in chain)
    if now < begin.timestamp():
        yield trouble("certificate", f"it counts only from {begin.date()} on", do)
    elif now >= end.timestamp():
        yield trouble("certificate", f"it has counted until {end.date()}", do)
    elif end.timestamp() < now + SOON:
        yield warning("certificate", f"it counts until {end.date()}", do)
    else:
        yield well("certificate", f"it counts until {end.date()}")


def _issued(lower: x509.Certificate, upper: x509.Certificate) -> bool:
    try:
        lower.verify_directly_issued_by(upper)
    except (InvalidSignature, TypeError, ValueError):  # of another key; of a kind of key that signs no certificates
        return False
    return True


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]


def _covers(name: str, host: str) -> bool:
    """RFC 9525, section 6.3: a wildcard stands for the whole left-most label."""
    return name.lower() == host.lower() or (
        name.startswith("*.") and host.partition(".")[2].lower() == name[2:].lower()
    )


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()
