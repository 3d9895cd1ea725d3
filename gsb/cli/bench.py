"""``gsb bench``: benchmarks that compare inside one run; 1 is the exit code below the bar."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from gsb.bench import memory as memory_bench
from gsb.bench import store as store_bench
from gsb.bench import sync as sync_bench
from gsb.bench.crowd import fairness as fairness_bench
from gsb.bench.crowd import strain as strain_bench
from gsb.bench.evidence import measure as evidence_bench
from gsb.bench.search import measure as search_bench
from gsb.cli.shared import fail
from gsb.lint_backends import KAFKA, POSTGRES

if KAFKA and POSTGRES:
    from gsb.bench.cluster import measure as cluster_bench

_OWN = "One that is there; without it one of its own."

bench = typer.Typer(help="Measure, by ratios within one run.", no_args_is_help=True)


@bench.command("store")
def store(
    folder: Annotated[Path | None, typer.Option("--folder", help="Where to write; not a tmpfs.")] = None,
    exchanges: Annotated[int, typer.Option("--exchanges", min=64, help="Exchanges in each run.")] = 2_048,
    in_flight: Annotated[int, typer.Option("--in-flight", min=1, help="Exchanges at once.")] = 64,
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Interleaved pairs of runs.")] = 5,
) -> None:
    """Accept and finish exchanges through the store, against the same rows written raw to SQLite."""
    raise typer.Exit(_run(store_bench.main(folder, exchanges=exchanges, in_flight=in_flight, pairs=pairs)))


@bench.command("search")
def search(
    folder: Annotated[Path | None, typer.Option("--folder", help="Where to write, about 1 KB an exchange.")] = None,
    exchanges: Annotated[int, typer.Option("--exchanges", min=1_000, help="Exchanges in the store.")] = 1_000_000,
    times: Annotated[int, typer.Option("--times", min=2, help="Queries of each kind.")] = 50,
) -> None:
    """A page of every kind of query among a million exchanges: at most 50 ms in the median."""
    raise typer.Exit(_run(search_bench.main(folder, exchanges=exchanges, times=times)))


@bench.command("floor")
def floor(
    folder: Annotated[Path | None, typer.Option("--folder", help="Where to write; not a tmpfs.")] = None,
    in_flight: Annotated[int, typer.Option("--in-flight", min=1, help="Calls at once.")] = 64,
    pairs: Annotated[int, typer.Option("--turns", min=1, help="Turns of load.")] = 5,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="How long one turn is.")] = 3.0,
) -> None:
    """A bare HTTP handler with the same cryptography, validation and durable commits, and nothing else of the bus."""
    raise typer.Exit(_run(sync_bench.floor_alone(folder, sync_bench.Plan(pairs, in_flight, seconds))))


@bench.command("sync")
def sync(
    folder: Annotated[Path | None, typer.Option("--folder", help="Where to write; not a tmpfs.")] = None,
    in_flight: Annotated[int, typer.Option("--in-flight", min=1, help="Calls at once.")] = 64,
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Interleaved pairs of turns.")] = 5,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="How long one turn is.")] = 3.0,
    profile: Annotated[bool, typer.Option("--profile", help="Print where an exchange's time goes instead.")] = False,
) -> None:
    """Synchronous exchanges through a whole node on one core, against the floor on the same core."""
    plan = sync_bench.Plan(pairs, in_flight, seconds)
    raise typer.Exit(_run((sync_bench.profile if profile else sync_bench.main)(folder, plan)))


@bench.command("memory")
def memory(
    folder: Annotated[Path | None, typer.Option("--folder", help="Where to write, about 10 KB an exchange.")] = None,
    exchanges: Annotated[int, typer.Option("--exchanges", min=1_000, help="Exchanges in all.")] = 1_000_000,
) -> None:
    """A node's resident memory after all the exchanges, against that after a tenth of them."""
    raise typer.Exit(_run(memory_bench.main(folder, exchanges)))


@bench.command("fairness")
def fairness(
    folder: Annotated[Path | None, typer.Option("--folder", help="Where to write; not a tmpfs.")] = None,
    connections: Annotated[int, typer.Option("--connections", min=1, help="Of the agency that floods.")] = 64,
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Interleaved pairs of turns.")] = 9,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="How long one turn is.")] = 2.0,
) -> None:
    """An agency's p99 while another floods the bus, against its p99 without."""
    raise typer.Exit(_run(fairness_bench.main(folder, fairness_bench.Plan(pairs, connections, seconds))))


@bench.command("strain")
def strain(
    folder: Annotated[Path | None, typer.Option("--folder", help="Where to write; not a tmpfs.")] = None,
    connections: Annotated[int, typer.Option("--connections", min=1, help="That call the bad system.")] = 64,
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Interleaved pairs of turns.")] = 7,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="How long one turn is.")] = 2.0,
) -> None:
    """The p99 of one system's exchanges while another system is slow or dead, against its p99 without."""
    raise typer.Exit(_run(strain_bench.main(folder, fairness_bench.Plan(pairs, connections, seconds))))


@bench.command("cluster")
def cluster(
    postgres: Annotated[str | None, typer.Option("--postgres", metavar="URI", help=_OWN)] = None,
    kafka: Annotated[str | None, typer.Option("--kafka", metavar="HOST:PORT", help=_OWN)] = None,
    folder: Annotated[Path | None, typer.Option("--folder", help="Where its own servers write; not a tmpfs.")] = None,
    exchanges: Annotated[int, typer.Option("--exchanges", min=4, help="Exchanges in each turn.")] = 2_000,
    in_flight: Annotated[int, typer.Option("--in-flight", min=1, help="Exchanges at once.")] = 64,
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Interleaved pairs of turns.")] = 5,
    calls: Annotated[int, typer.Option("--calls", min=1, help="Synchronous calls in each turn.")] = 100,
) -> None:
    """Exchanges over PostgreSQL and Kafka, against the same rows written by hand and a bare way over Kafka."""
    if not (KAFKA and POSTGRES):
        raise fail("it takes the extras postgres and kafka: install the bus with them")
    if exchanges < 2 * in_flight:
        raise fail("--exchanges must be twice --in-flight at least")
    plan = cluster_bench.Plan(pairs, exchanges, in_flight, calls)
    raise typer.Exit(_run(cluster_bench.main(folder, postgres, kafka, plan)))


@bench.command("evidence")
def evidence(
    folder: Annotated[Path | None, typer.Option("--folder", help="Where to write, 2 GB at most; not a tmpfs.")] = None,
    entries: Annotated[int, typer.Option("--entries", min=1, help="Entries recorded in each turn.")] = 50_000,
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Interleaved pairs of turns.")] = 5,
    verified: Annotated[int, typer.Option("--verified", min=1, help="Entries of the log to verify.")] = 1_000_000,
    largest: Annotated[int, typer.Option("--largest", min=1_000, help="Entries of the largest log.")] = 10_000_000,
    receipts: Annotated[int, typer.Option("--receipts", min=2, help="Receipts from each log.")] = 1_000,
) -> None:
    """Entries recorded a second, against a loop that hashes and appends; a log verified; receipts from larger logs."""
    plan = evidence_bench.Plan(entries, pairs, verified, largest, receipts)
    raise typer.Exit(_run(evidence_bench.main(folder, plan)))


def _run(work: Coroutine[None, None, int]) -> int:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
