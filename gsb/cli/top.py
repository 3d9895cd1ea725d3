"""``gsb top``: what a node is doing now, from two readings of its ``/metrics``.

It reads and changes nothing. Rates and quantiles are of the time between two readings; quantiles are as fine as the
buckets of the histograms. A node that was started anew in between counts from zero again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import aiohttp
import orjson
import typer
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gsb.cli.shared import fail, print_json, shown

PATIENCE = 10.0
"""Seconds that a reading may take."""
WIDTH = 120
"""Columns where there is no terminal to ask."""

Numbers = dict[str, Any]
Url = Annotated[str, typer.Option("--operations-url", envvar="GSB_OPERATIONS_URL", help="Base URL, operations port.")]
Interval = Annotated[float, typer.Option("--interval", min=0.1, max=3600, help="Seconds between two readings.")]
Once = Annotated[bool, typer.Option("--once", help="Read twice, print one table, and end.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines: one document; without --once one line for each.")]


Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading; ``at`` in seconds of a clock that only grows."""

    at: float
    samples: Mapping[str, Mapping[Labels, float]]
    """By name and labels; without the buckets."""
    buckets: Mapping[tuple[str, Labels], Mapping[float, float]]
    """Of each histogram, by its name and labels, the cumulative counts by upper bound."""

    def value(self, name: str, **labels: str) -> float | None:
        return self.samples.get(name, {}).get(frozenset(labels.items()))

    def total(self, name: str, **labels: str) -> float:
        """The sum over every sample that has these labels, whatever else it has."""
        return sum(value for _, value in self.with_labels(name, **labels))

    def with_labels(self, name: str, **labels: str) -> Iterator[tuple[dict[str, str], float]]:
        for found, value in self.samples.get(name, {}).items():
            if labels.items() <= found:
                yield dict(found), value


@dataclass(frozen=True, slots=True)
class Between:
    """What happened from one reading to the next; with no earlier one, since the node began."""

    before: Reading | None
    now: Reading

    def rise(self, name: str, **labels: str) -> float:
        """By how much a counter grew; one that fell was begun anew."""
        value = self.now.total(name, **labels)
        earlier = self.before.total(name, **labels) if self.before else 0.0
        return value - earlier if value >= earlier else value

    def rate(self, name: str, **labels: str) -> float | None:
        """How often in a second; None without an earlier reading."""
        if self.before is None:
            return None
        return round(self.rise(name, **labels) / max(self.now.at - self.before.at, 1e-9), 3)

    def quantile(self, q: float, name: str, **labels: str) -> float | None:
        """In the histogram's unit; None when nothing was observed."""
        key = (name, frozenset(labels.items()))
        now, before = self.now.buckets.get(key, {}), self.before.buckets.get(key, {}) if self.before else {}
        if now.get(math.inf, 0.0) < before.get(math.inf, 0.0):
            before = {}
        return quantile(q, sorted((bound, count - before.get(bound, 0.0)) for bound, count in now.items()))


def quantile(q: float, buckets: Iterable[tuple[float, float]]) -> float | None:
    """Of cumulative buckets ``(upper bound, count)``, ascending, the last of them infinite: linear within a bucket.

    Beyond the last finite bound nothing is known but that, so it is the answer. None when all are empty.
    """
    found = list(buckets)
    if not found or found[-1][1] <= 0:
        return None
    wanted = q * found[-1][1]
    low, under = 0.0, 0.0
    for high, count in found:
        if count >= wanted and count > under:
            return low if math.isinf(high) else low + (high - low) * (wanted - under) / (count - under)
        low, under = high, count
    return low


def read(text: str, at: float) -> Reading:
    """Raises ValueError for what is no metrics."""
    samples: dict[str, dict[Labels, float]] = {}
    buckets: dict[tuple[str, Labels], dict[float, float]] = {}
    for sample in (sample for family in text_string_to_metric_families(text) for sample in family.samples):
        labels = dict(sample.labels)
        if sample.name.endswith("_bucket"):
            bound = float(labels.pop("le", ""))
            of = (sample.name.removesuffix("_bucket"), frozenset(labels.items()))
            buckets.setdefault(of, {})[bound] = sample.value
        else:
            samples.setdefault(sample.name, {})[frozenset(labels.items())] = sample.value
    if "gsb_info" not in samples:
        raise ValueError("it is not the operations port of a bus")
    return Reading(at, samples, buckets)


# --- the numbers


def summary(between: Between) -> Numbers:
    """Everything that is shown, ready for JSON: rates in a second, durations in seconds."""
    now = between.now
    return {
        "node": {
            "catalogue": next((found["digest"] for found, _ in now.with_labels("gsb_catalogue_info")), None),
            "calls_rate": {kind: between.rate("gsb_calls_total", status=kind) for kind in ("2xx", "4xx", "5xx")},
            "calls_in_flight": now.value("gsb_calls_in_flight", port="api"),
            "waiting": now.value("gsb_exchanges_standing", state="waiting"),
            "held": now.value("gsb_exchanges_standing", state="held"),
            "unknown": now.value("gsb_exchanges_standing", state="unknown"),
            "commits_rate": between.rate("gsb_store_commit_seconds_count"),
            "commits_p99": between.quantile(0.99, "gsb_store_commit_seconds"),
        },
        "services": [_service(between, each) for each in _named(now, "gsb_exchanges_accepted_total", "service")],
        "systems": [_system(between, each) for each in _named(now, "gsb_adapter_call_seconds_count", "system")],
        "problems": _problems(between),
    }


def _named(now: Reading, name: str, label: str) -> list[str]:
    """The names that this label has; the one for all others only if there are any."""
    found = {labels[label]: value for labels, value in now.with_labels(name)}
    return sorted(each for each, value in found.items() if each != "other" or value)


def _service(between: Between, service: str) -> Numbers:
    ended, done = (between.rate("gsb_exchanges_ended_total", service=service, **of) for of in ({}, {"state": "done"}))
    stalled = between.rate("gsb_exchanges_stalled_total", service=service)
    rates = None if ended is None or done is None or stalled is None else round(ended - done + stalled, 3)
    return {
        "service": service,
        "accepted_rate": between.rate("gsb_exchanges_accepted_total", service=service),
        "ended_rate": ended,
        "errors_rate": rates,
        "p50": between.quantile(0.5, "gsb_exchange_seconds", service=service),
        "p99": between.quantile(0.99, "gsb_exchange_seconds", service=service),
        "performing": between.now.value("gsb_exchanges_performing", service=service),
    }


def _system(between: Between, system: str) -> Numbers:
    states = between.now.with_labels("gsb_breaker_state", system=system)
    return {
        "system": system,
        "breaker": next((labels["state"] for labels, value in states if value), None),
        "calls_rate": between.rate("gsb_adapter_calls_total", system=system),
        "unavailable_rate": between.rate("gsb_adapter_calls_total", system=system, result="unavailable"),
        "broken_rate": between.rate("gsb_adapter_calls_total", system=system, result="broken"),
        "p50": between.quantile(0.5, "gsb_adapter_call_seconds", system=system),
        "p99": between.quantile(0.99, "gsb_adapter_call_seconds", system=system),
    }


def _problems(between: Between) -> list[Numbers]:
    codes = (found["code"] for found, _ in between.now.with_labels("gsb_problems_total"))
    rises = {code: between.rise("gsb_problems_total", code=code) for code in codes}
    most = sorted(((rise, code) for code, rise in rises.items() if rise > 0), reverse=True)
    return [{"code": code, "count": rise} for rise, code in most]


# --- the picture


def picture(numbers: Numbers) -> Group:
    node = numbers["node"]
    head = Text()
    rates = node["calls_rate"]
    head.append(f"calls/s  2xx {_rate(rates['2xx'])}  4xx {_rate(rates['4xx'])}  5xx {_rate(rates['5xx'])}   ")
    head.append(f"in flight {_count(node['calls_in_flight'])}   ")
    for state in ("waiting", "held", "unknown"):
        head.append(f"{state} {_count(node[state])}", "bold yellow" if node[state] and state != "waiting" else "")
        head.append("   ")
    head.append(f"commits/s {_rate(node['commits_rate'])}  p99 {_time(node['commits_p99'])}")
    parts: list[Text | Table] = [head, _services(numbers["services"]), _systems(numbers["systems"])]
    if numbers["problems"]:
        most = "  ".join(f"{each['code']} {each['count']:.0f}" for each in numbers["problems"][:5])
        parts.append(Text(shown(f"problems  {most}")))
    return Group(*parts)


def _services(services: list[Numbers]) -> Table:
    table = _table("service", "accepted/s", "ended/s", "errors/s", "p50", "p99", "performing")
    # The busiest first: that is what is left when the terminal is too low for all.
    for each in sorted(services, key=lambda one: (-(one["ended_rate"] or 0.0), one["service"])):
        table.add_row(
            Text(shown(each["service"])),
            _rate(each["accepted_rate"]),
            _rate(each["ended_rate"]),
            Text(_rate(each["errors_rate"]), "red" if each["errors_rate"] else ""),
            _time(each["p50"]),
            _time(each["p99"]),
            _count(each["performing"]),
        )
    return table


def _systems(systems: list[Numbers]) -> Table:
    table = _table("system", "breaker", "calls/s", "unavailable/s", "broken/s", "p50", "p99")
    for each in systems:
        breaker = each["breaker"] or "-"
        table.add_row(
            Text(shown(each["system"])),
            Text(shown(breaker), "bold red" if breaker not in ("closed", "-") else ""),
            _rate(each["calls_rate"]),
            _rate(each["unavailable_rate"]),
            _rate(each["broken_rate"]),
            _time(each["p50"]),
            _time(each["p99"]),
        )
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(first, min_width=28)
    for name in others:
        table.add_column(name, justify="right", min_width=9)
    return table


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


# --- the command


def top(url: Url, interval: Interval = 2.0, once: Once = False, as_json: AsJson = False) -> None:
    """Show what a node is doing now: services, systems and what stands still. Ctrl-C ends it."""
    try:
        asyncio.run(_watch(url, interval, once=once, as_json=as_json))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
        raise fail(f"not a URL: {url}") from error
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise fail(f"unreachable: {url}/metrics: {error or 'no answer in time'}", 6) from error


async def _watch(url: str, interval: float, *, once: bool, as_json: bool) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as session:
        before = await _read(session, url)
        if once or as_json or not console.is_terminal:
            while True:
                await asyncio.sleep(interval)
                now = await _read(session, url)
                _tell(console, summary(Between(before, now)), once=once, as_json=as_json)
                if once:
                    return
                before = now
        with Live(picture(summary(Between(None, before))), console=console, auto_refresh=False) as live:
            while True:
                await asyncio.sleep(interval)
                now = await _read(session, url)
                live.update(picture(summary(Between(before, now))), refresh=True)
                before = now


async def _read(session: aiohttp.ClientSession, url: str) -> Reading:
    async with session.get(f"{url.rstrip('/')}/metrics", allow_redirects=False) as answer:
        if answer.status != 200:
            raise ValueError(f"it answers with status {answer.status}")
        return read(await answer.text(), time.monotonic())


def _tell(console: Console, numbers: Numbers, *, once: bool, as_json: bool) -> None:
    if as_json and once:
        print_json(numbers)
    elif as_json:
        typer.echo(orjson.dumps(numbers))
    else:
        console.print(picture(numbers))
