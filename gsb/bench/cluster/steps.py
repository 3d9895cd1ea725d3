"""Where the time of an exchange goes in each role, with the stop-watches of ``gsb.bench.steps``.

Run as a module it is ``gsb serve`` with a stop-watch around each step, and prints its table after SIGTERM. Only the
proportions mean something.
"""

from __future__ import annotations

import atexit
import sys
from typing import Any

from gsb import admit, handout, jws, perform, record, workers
from gsb.bench.steps import TASKS, watch_the_steps
from gsb.broker.kafka import KafkaBroker
from gsb.broker.kafka.intake import Intake
from gsb.broker.kafka.outbox import Outbox
from gsb.cli.main import main
from gsb.policy import Policy
from gsb.runtime import Runtime
from gsb.store.postgres import PostgresStore
from gsb.store.postgres.batch import Batch
from gsb.store.postgres.writer import Writer
from gsb.web import app, server

STEPS: tuple[tuple[str, Any, str], ...] = (
    (TASKS[0], app.Edge, "handle"),
    ("edge: read", app, "read_call"),
    ("admit", app.API[0], "endpoint"),
    ("admit 2 who signed", admit, "authenticate"),
    ("admit 3 bound to this request", jws, "bind"),
    ("admit 4 seen before", PostgresStore, "look"),
    ("admit 6 granted", Policy, "decide"),
    ("admit 8 request schema", admit, "request_fits"),
    ("admit 9 what is accepted", admit, "new_exchange"),
    ("admit 9 accept", PostgresStore, "accept"),
    ("admit 10 dispatch", KafkaBroker, "dispatch"),
    ("admit 10 look at it", PostgresStore, "exchange"),
    ("admit 10 hand out", handout, "outcome"),
    ("edge: sign", app.Edge, "_signature"),
    ("edge: respond", server.Said, "prepare"),
    (TASKS[1], workers, "perform"),
    ("perform 1 begin", PostgresStore, "begin"),
    ("perform 2 adapter", Runtime, "call"),
    ("perform 3, 4 schema, fields", perform, "after_reply"),
    ("perform 5 entry", perform, "outcome_entry"),
    ("perform 5 finish", PostgresStore, "finish"),
    ("perform 5 log", perform, "tell"),
    ("perform 6 wake", KafkaBroker, "wake"),
    ("store: commit", Writer, "_transact"),
    ("store: load", Batch, "load"),
    ("store: write", Batch, "write"),
    ("kafka: say", Outbox, "_send"),
    ("kafka: take in", Intake, "_take_in"),
    ("record: look", record.Recorder, "look"),
)
"""See ``gsb.bench.steps.STEPS``."""


if __name__ == "__main__":
    found = watch_the_steps(STEPS)
    atexit.register(lambda: print(found.table()))
    sys.argv[:1] = ["gsb", "serve"]
    main()
