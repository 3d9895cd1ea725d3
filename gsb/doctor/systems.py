"""The core systems, each asked by its own adapter's ``check``, as a node would ask it. Nothing is done there.

An adapter may say anything in its errors, so only their types are told. A crash means nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from gsb.catalogue import Catalogue
from gsb.doctor.found import Found, trouble, well
from gsb.load import ConfigInvalid, Finding
from gsb.roles import ALL, Roles
from gsb.runtime import Runtime
from gsb.sdk.errors import Unavailable


async def systems(catalogue: Catalogue, roles: Roles = ALL) -> AsyncIterator[Found]:
    """Each for which this node works, once, all at the same time."""
    runtime, shut = await _opened(catalogue, roles)
    try:
        for finding in shut:
            yield _shut(finding)
        names = list(runtime.health())
        for found in await asyncio.gather(*(_one(runtime, catalogue, name) for name in names)):
            yield found
    finally:
        await runtime.close()


async def _opened(catalogue: Catalogue, roles: Roles) -> tuple[Runtime, list[Finding]]:
    """As many as open, and why the others do not: one must not keep the others from being asked."""
    wanted = {f"systems/{name}.toml": name for name in catalogue.systems if roles.works_for(name)}
    shut: list[Finding] = []
    while True:
        runtime = Runtime(works_for=frozenset(wanted.values()).__contains__)
        try:
            await runtime.open(catalogue)
            return runtime, shut
        except ConfigInvalid as error:
            shut += error.findings
            if not [wanted.pop(each.file) for each in error.findings if each.file in wanted]:
                return runtime, shut  # what has changed since the catalogue was built, of whatever file


def _shut(finding: Finding) -> Found:
    # What follows the type of an adapter's error is the adapter's own text.
    said = ": ".join(finding.message.split(": ")[:2])
    do = f"gsb serve does not start with it, and says the whole: mend what {finding.file} names"
    return trouble(f"system: {finding.file.removeprefix('systems/').removesuffix('.toml')}", said, do)


async def _one(runtime: Runtime, catalogue: Catalogue, name: str) -> Found:
    system = catalogue.systems[name]
    what, do = f"system: {name}", f"ask {system.agency}, look at the way there and at systems/{name}.toml"
    try:
        async with asyncio.timeout(system.timeout):
            await runtime.check(name)
    except TimeoutError:
        return trouble(what, f"it does not answer within {system.timeout:g} s", do)
    except Unavailable:
        return trouble(what, "it cannot be reached, or takes nothing now", do)
    except Exception as error:
        return trouble(what, f"its answer makes no sense ({type(error).__name__})", do)
    return well(what, f"{system.title} answers")
