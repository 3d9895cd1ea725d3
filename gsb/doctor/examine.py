"""Every examination, one after the other, each bounded in time; what escapes one is a finding too.

A crash means nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial

from gsb.catalogue import Catalogue
from gsb.doctor import keys, machine
from gsb.doctor.found import Found, trouble
from gsb.doctor.network import names
from gsb.doctor.node import node
from gsb.doctor.standing import kafka, store
from gsb.doctor.systems import systems
from gsb.plans import plans
from gsb.roles import ALL, Roles

WITHIN = 60.0
"""Seconds for one examination."""


def _secrets(catalogue: Catalogue, roles: Roles) -> Iterable[Found]:
    mine = [plan for plan in plans(catalogue) if roles.works_for(plan.system.id)]
    return keys.secrets(catalogue, [path for plan in mine for path in plan.essence.secrets])


Look = Callable[[Catalogue], Iterable[Found] | AsyncIterator[Found]]


def _looks(roles: Roles) -> Iterable[tuple[str, Look]]:
    """In the order in which one thing explains the next."""
    return (
        ("clock", machine.clock),
        ("disk", partial(machine.disks, roles=roles)),
        ("open files", machine.files),
        ("names", partial(names, roles=roles)),
        ("keys", keys.lives),
        ("hsm", keys.hsm),
        ("key sets", keys.published),
        ("secrets", partial(_secrets, roles=roles)),
        ("certificate", keys.certificate),
        ("store", store),
        ("kafka", kafka),
        ("systems", partial(systems, roles=roles)),
        ("node", partial(node, roles=roles)),
    )


async def examine(catalogue: Catalogue, roles: Roles = ALL) -> AsyncIterator[Found]:
    """All that is found, as soon as it is; ``roles`` are those of the node that runs here."""
    for what, look in _looks(roles):
        found: list[Found] = []
        try:
            async with asyncio.timeout(WITHIN):
                looked = look(catalogue)
                if isinstance(looked, AsyncIterator):
                    async for each in looked:
                        found += (each,)  # one by one: what was found before the time is over counts
                else:
                    found = await asyncio.to_thread(list, looked)
        except TimeoutError:
            yield trouble(what, f"nothing could be told within {WITHIN:g} s", "see whether this machine is overloaded")
        except Exception as error:
            # An examination that fails must not hide what the others find.
            yield trouble(what, f"it could not be examined: {type(error).__name__}", "this is a defect: report it")
        for each in found:
            yield each
