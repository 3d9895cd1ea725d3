"""The core systems, each asked by its own adapter's ``check``, as a node would ask it. Nothing is done there.

An adapter may say anything in its errors, so only their types are told. A crash means nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from gsb.catalogue import Catalogue
from gsb.doctor.found import Found, trouble, well
from gsb.load import ConfigInvalid
from gsb.runtime import Runtime
from gsb.sdk.errors import Unavailable


async def systems(catalogue: Catalogue) -> AsyncIterator[Found]:
    """Each once, all at the same time."""
    runtime = Runtime()
    try:
        await runtime.open(catalogue)
    except ConfigInvalid as error:
        for finding in error.findings:
            yield trouble("systems", str(finding), "gsb check says more")
        return
    try:
        names = list(catalogue.systems)
        for found in await asyncio.gather(*(_one(runtime, catalogue, name) for name in names)):
            yield found
    finally:
        await runtime.close()


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
