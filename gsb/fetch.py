"""Reads one small document from an https address that somebody else chose, in such a way that nothing else can happen.

The server is verified; no redirect is followed, no proxy asked, no cookie kept, nothing decompressed. Each address is
judged in the moment a connection is made to it, so it does not matter what a name stood for before, or that the URL
names an address itself. What may be read is bounded in bytes and in time. Nothing is kept; a crash loses nothing.

Sources: RFC 9110 (13.1.2 If-None-Match), RFC 9111 (5.2.2.1 max-age), and for addresses that are not public the
registries of RFC 6890 as Python's ipaddress has them, RFC 6052 (NAT64) and RFC 4291.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Iterable
from errno import EACCES
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

LIMIT = 65_536
"""Bytes of a document."""
WITHIN = 5.0
"""Seconds for all of it: name, connection, TLS, answer."""
HEADERS = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity", "User-Agent": "gsb"}
GLOBAL = IPv6Network("2000::/3")
NAT64 = IPv6Network("64:ff9b::/96")
TUNNELS = (IPv6Network("2001::/32"), IPv6Network("2002::/16"))
"""Teredo and 6to4, which carry an IPv4 address of anybody's choice."""

Network = IPv4Network | IPv6Network


class Unread(Exception):
    """It was not read; the text says why, in words for an operator."""


class Document(NamedTuple):
    body: bytes | None
    """None: it is still the one of the entity tag that was sent along."""
    etag: str | None
    max_age: float | None
    """Seconds for which it is fresh; None where the server does not say."""


def allowed(address: IPv4Address | IPv6Address, networks: Iterable[Network]) -> bool:
    """Whether a connection may be made to this address: it is public, or in one of these networks."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif address in NAT64:
            address = IPv4Address(int(address) & 0xFFFF_FFFF)
    if any(address in network for network in networks):
        return True
    if address.is_multicast or not address.is_global:
        return False
    return isinstance(address, IPv4Address) or (address in GLOBAL and not any(address in each for each in TUNNELS))


async def fetch(url: str, *, networks: Iterable[Network] = (), ca: Path | None = None, etag: str | None) -> Document:
    """The document at an https URL. Raises Unread."""
    refused: list[str] = []
    try:
        context = await asyncio.to_thread(_context, ca)
        connector = aiohttp.TCPConnector(
            ssl=context,
            force_close=True,
            use_dns_cache=False,
            socket_factory=partial(_socket, refused, tuple(networks)),
        )
        async with (
            asyncio.timeout(WITHIN),
            aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False
            ) as session,
            session.get(
                url, headers=HEADERS | ({"If-None-Match": etag} if etag else {}), allow_redirects=False
            ) as answer,
        ):
            return await _document(answer, etag)
    except TimeoutError:
        raise Unread(f"it was not read within {WITHIN:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        if refused:
            where = ", ".join(sorted(set(refused)))
            raise Unread(f"its host is at {where}: neither a public address nor in its networks") from None
        raise Unread(f"{type(error).__name__}: {error}"[:300]) from None


def _context(ca: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _socket(refused: list[str], networks: tuple[Network, ...], info: tuple[Any, ...]) -> socket.socket:
    """A socket for a connection to the address in ``info``; there is none for one that is not allowed."""
    family, kind, protocol, _, place = info
    host = str(place[0]).partition("%")[0]
    if not allowed(ip_address(host), networks):
        refused.append(host)
        raise OSError(EACCES, "not an allowed address")
    return socket.socket(family, kind, protocol)


async def _document(answer: aiohttp.ClientResponse, etag: str | None) -> Document:
    tag, max_age = _tag(answer), _max_age(answer)
    if answer.status == 304 and etag is not None:
        return Document(None, tag or etag, max_age)
    if answer.status != 200:
        raise Unread(f"it answers {answer.status}")
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Unread("it comes compressed, though that was not asked for")
    body = b""
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > LIMIT:
            raise Unread(f"it has more than {LIMIT:,} bytes")
    return Document(body, tag, max_age)


def _tag(answer: aiohttp.ClientResponse) -> str | None:
    """An entity tag that can be sent back as it came."""
    tag = answer.headers.get("ETag", "")
    return tag if re.fullmatch(r'(W/)?"[!#-~]{0,256}"', tag) else None


def _max_age(answer: aiohttp.ClientResponse) -> float | None:
    said = ",".join(answer.headers.getall("Cache-Control", [])).lower()
    if re.search(r"(^|[\s,])no-(store|cache)\b", said):
        return 0.0
    found = re.search(r'(?:^|[\s,])max-age="?([0-9]{1,10})\b', said)
    return None if found is None else float(found[1])
