"""Whether the names stand for addresses that the deployment reaches out to. It sends nothing to anybody else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from gsb.backends import KafkaTable, PostgresTable
from gsb.catalogue import Catalogue
from gsb.doctor.found import Found, trouble, well
from gsb.dsn import hosts, read_dsn
from gsb.roles import ALL, Roles


async def names(catalogue: Catalogue, roles: Roles = ALL) -> AsyncIterator[Found]:
    """Each host that is named, looked up once; of core systems those for which this node works."""
    lost, named = [], sorted(set(_named(catalogue, roles)))
    loop = asyncio.get_running_loop()
    answers = await asyncio.gather(*(loop.getaddrinfo(host, None) for host in named), return_exceptions=True)
    for host, answer in zip(named, answers, strict=True):
        if isinstance(answer, BaseException):
            why = answer.strerror if isinstance(answer, socket.gaierror) else type(answer).__name__
            lost.append(host)
            yield trouble(f"name: {host}", f"it stands for no address: {why}", "mend the name, /etc/resolv.conf or DNS")
    if not lost:
        yield well("names", f"{len(named)} hosts are named, and each stands for an address")


def _named(catalogue: Catalogue, roles: Roles) -> Iterator[str]:
    table = catalogue.gsb
    urls = [*table.bus.base_urls, table.bus.operations_url, *(each.url for each in table.log.witnesses)]
    urls += [agency.jwks.url for agency in catalogue.agencies.values() if agency.jwks is not None]
    if table.log.timestamp is not None:
        urls.append(table.log.timestamp.url)
    if table.tracing is not None:
        urls.append(table.tracing.endpoint)
    mine = [system for system in catalogue.systems.values() if roles.works_for(system.id)]
    urls += [url for system in mine for url in _urls(system.settings.values())]
    yield from (host for url in urls if (host := urlsplit(url).hostname))
    if isinstance(table.broker, KafkaTable):
        yield from (broker.rpartition(":")[0].strip("[]") for broker in table.broker.brokers)
    if isinstance(table.store, PostgresTable):
        yield from hosts(read_dsn(table.store.dsn))


def _urls(values: Iterable[Any]) -> Iterator[str]:
    """What looks like the address of a server in a system's settings, whatever its adapter calls it."""
    for value in values:
        if isinstance(value, str) and "://" in value and not any(each.isspace() for each in value):
            yield value
        elif isinstance(value, dict):
            yield from _urls(value.values())
