"""The commands of ``gsb adapter``, put together."""

from __future__ import annotations

import typer

from gsb.cli.adapter.grade import grade
from gsb.cli.adapter.new import new
from gsb.cli.adapter.run import record, replay, try_

adapter = typer.Typer(help="Begin an adapter, try it, record and replay its calls, grade it.", no_args_is_help=True)
adapter.command()(new)
adapter.command("try")(try_)
adapter.command()(record)
adapter.command()(replay)
adapter.command()(grade)
