"""``gsb bench``: benchmarks that compare inside one run; 1 is the exit code below the bar."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from gsb.bench import store as store_bench

bench = typer.Typer(help="Measure, by ratios within one run.", no_args_is_help=True)


@bench.command("store")
def store(
    folder: Annotated[Path | None, typer.Option("--folder", help="Where to write; not a tmpfs.")] = None,
    exchanges: Annotated[int, typer.Option("--exchanges", min=64, help="Exchanges in each run.")] = 2_048,
    in_flight: Annotated[int, typer.Option("--in-flight", min=1, help="Exchanges at once.")] = 64,
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Interleaved pairs of runs.")] = 5,
) -> None:
    """Accept and finish exchanges through the store, against the same rows written raw to SQLite."""
    raise typer.Exit(asyncio.run(store_bench.main(folder, exchanges=exchanges, in_flight=in_flight, pairs=pairs)))


@bench.callback()
def benchmarks() -> None:
    """Kept so that a single benchmark stays a command of its own."""
