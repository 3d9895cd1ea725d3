"""The node that is at work, asked at its operations port.

What it says it lacks, how far the log is behind, and how long ago witnesses cosigned. A crash means nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping

import aiohttp
import orjson
from prometheus_client.parser import text_string_to_metric_families

from gsb.catalogue import Catalogue
from gsb.config import LogTable
from gsb.doctor.found import Found, trouble, warning, well
from gsb.roles import ALL, Role, Roles

PATIENCE = 10.0
"""Seconds for each answer."""
HALF = 0.5
"""Of the distance at which new exchanges are refused, from which on it is time to look."""
LACKS = {
    "store": "look at what is said of the store",
    "recorder": "see whether a recorder runs and can write the log's folder",
    "witness": "ask the witnesses' operators",
    "broker": "look at what is said of Kafka",
    "clock": "set the clocks of this machine and of the store right",
    "keys": "see what is said of the bus's keys and of its HSM",
    "draining": "it is being stopped; start it again if nobody meant that",
}
"""What to do, by the names of ``/readyz``."""


async def node(catalogue: Catalogue, roles: Roles = ALL) -> AsyncIterator[Found]:
    """Whichever answers at ``bus.operations_url``. Of witnesses only a recorder knows."""
    url = catalogue.gsb.bus.operations_url
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE), trust_env=False) as http:
            async with http.get(f"{url}/readyz") as answer:
                ready = orjson.loads(await answer.read())
            async with http.get(f"{url}/metrics") as answer:
                text = (await answer.read()).decode("utf-8", "replace")
        lacks, systems = [str(each) for each in ready["missing"]], dict(ready["systems"])
        numbers = _numbers(text)
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError) as error:
        yield warning(
            "node",
            f"none answers at {url} ({type(error).__name__})",
            "start one (gsb serve), or look at what lies between; where it runs elsewhere, ask it from there",
        )
        return
    yield (
        well("node", f"ready, at {url}")
        if not lacks
        else trouble(
            "node", f"it is not ready: {', '.join(lacks)}", "; ".join(LACKS.get(each, "see its log") for each in lacks)
        )
    )
    for name, why in systems.items():
        if why is not None:
            yield warning(f"node: system {name}", f"it counts as down: {why}", "see what is said of the system")
    for found in _recorder(catalogue.gsb.log, numbers):
        yield found
    if Role.RECORDER in roles:
        for found in _witnesses(catalogue.gsb.log, numbers):
            yield found


def _numbers(text: str) -> Mapping[str, float]:
    """The metrics that have no labels. Raises ValueError."""
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.labels
    }


def _recorder(table: LogTable, numbers: Mapping[str, float]) -> Iterator[Found]:
    entries, seconds = (numbers.get(f"gsb_log_backlog_{unit}", 0.0) for unit in ("entries", "seconds"))
    said = f"{entries:.0f} entries are not published, the oldest {seconds:.0f} s old"
    do = "see whether a recorder runs, and whether the log's disk keeps up"
    far = max(entries / table.behind_entries, seconds / table.behind_seconds)
    if far > 1:
        yield trouble("recorder", f"{said}: new exchanges are refused", do)
    elif far > HALF:
        yield warning("recorder", said, do)
    else:
        yield well("recorder", said)


def _witnesses(table: LogTable, numbers: Mapping[str, float]) -> Iterator[Found]:
    if not table.witnesses:
        yield warning(
            "witness",
            "nobody witnesses the log: whoever has its key can write another history",
            "ask another agency to run gsb witness serve, and name it in [[log.witnesses]]",
        )
    elif table.cosignatures:
        age = numbers.get("gsb_witness_cosigned_age_seconds", float("inf"))
        said = f"a checkpoint was cosigned by {table.cosignatures} of {len(table.witnesses)} {age:.0f} s ago"
        if age > table.cosigned_within:
            yield trouble("witness", said, "ask the witnesses' operators")
        else:
            yield well("witness", said)
    else:
        yield well("witness", f"{len(table.witnesses)} are asked, and no checkpoint waits for them")
