"""The demonstration: its data are always the same, its deployment is right, and a run does what it says.

Runs happen in a copy on free ports, so they neither meet nor disturb a demonstration that is up.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from config.demo import names, personnel
from config.demo.cluster import changed
from config.demo.interruption import count_outcomes
from config.demo.report import Report, Step, describe
from config.systems.catalogue import named
from gsb.bench.servers import kafka, postgres
from gsb.check import check
from gsb.schema import Schema
from tests.support.deployment import free_ports
from tests.support.needs import needs

ROOT = Path(__file__).parents[1]
LACK = named("openfisca").missing()
SCHEMAS = sorted((ROOT / "schemas" / "hrmis").rglob("*.json"))
SOURCES = ("gsb.toml", "systems/tax.toml")
"""Files in which ports stand."""
SLOWER = {
    "gsb.toml": ("[adapters]", "[limits]\nwait = 60\n\n[adapters]"),
    "systems/hrmis.toml": ("timeout = 5.0", "timeout = 20.0"),
    "agreements/payroll-personnel.toml": ("per_minute = 6,", "per_minute = 1,"),
}
"""What a machine would belie that stands still for ten seconds: an outcome at once, a payslip in five seconds, and no
further call in the ten after a burst."""
RUN_WITHIN = 600.0
"""Seconds; a run takes far less, but not on every machine."""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The demonstration in a folder of its own, on free ports, prepared by nobody yet."""
    shutil.copytree(ROOT / "config", tmp_path / "config", ignore=shutil.ignore_patterns("keys", "__pycache__"))
    shutil.copytree(ROOT / "schemas", tmp_path / "schemas")
    (tmp_path / ".deps").symlink_to(ROOT / ".deps")
    ports = dict(zip(("8080", "8081", "5100"), map(str, free_ports(3)), strict=True))
    for name in SOURCES:
        path = tmp_path / "config" / "demo" / name
        text = re.sub(r"\b(8080|8081|5100)\b", lambda found: ports[found[0]], path.read_text("utf-8"))
        path.write_text(text, "utf-8")
    for name, (old, new) in SLOWER.items():
        path = tmp_path / "config" / "demo" / name
        text = path.read_text("utf-8")
        assert text.count(old) == 1
        path.write_text(text.replace(old, new), "utf-8")
    return tmp_path


def start(copy: Path, program: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, copy / "config" / "demo" / program],
        cwd=copy,
        env={**os.environ, "ONCE": "", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


def run(copy: Path, program: str, **environment: str) -> tuple[int, str]:
    """Exit code and output."""
    with start(copy, program, **environment) as process:
        try:
            output, _ = process.communicate(timeout=RUN_WITHIN)
        finally:
            process.terminate()  # one that hangs still stops what it started
    return process.returncode, output


# --- personnel


def test_the_personnel_are_always_the_same(tmp_path: Path) -> None:
    personnel.build(tmp_path / "one.sqlite")
    personnel.build(tmp_path / "two.sqlite")
    personnel.build(tmp_path / "other.sqlite", seed=personnel.SEED + 1)
    one, two, other = (personnel.digest(tmp_path / f"{name}.sqlite") for name in ("one", "two", "other"))
    assert one == two
    assert one != other


def test_there_are_5000_civil_servants_in_their_ministries(tmp_path: Path) -> None:
    personnel.build(path := tmp_path / "hrmis.sqlite")
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM employees").fetchone() == (5000,)
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        staff = database.execute(
            "SELECT d.ministry, count(*) FROM employees e JOIN posts p ON p.id = e.post"
            " JOIN departments d ON d.id = p.department GROUP BY d.ministry"
        )
        assert dict(staff) == {code: number for code, _, number in names.MINISTRIES}


def test_a_second_payslip_for_a_month_would_show(tmp_path: Path) -> None:
    personnel.build(path := tmp_path / "hrmis.sqlite")
    with closing(sqlite3.connect(path)) as database, database:
        for exchange in ("first", "second"):
            database.execute(
                "INSERT INTO payslips"
                " (exchange, employee, period, gross, income_tax, social_security_contribution, net, currency)"
                " VALUES (?, 'E-000001', '2026-09', '1.00', '0.00', '0.00', '1.00', 'XOF')",
                (exchange,),
            )
    assert personnel.payslips(path, "2026-09", "E-000001") == 2
    assert personnel.payslips(path, "2026-09", "E-000002") == 0
    assert personnel.payslips(path, "2026-09") == 2


# --- schemas and deployment


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: str(path.relative_to(ROOT / "schemas")))
def test_examples_fit_their_schema(path: Path) -> None:
    schema = Schema.compile(json.loads(path.read_bytes()), path.name)
    assert schema.examples
    for example in schema.examples:
        assert schema.faults(example) == []


def test_the_deployment_is_right_once_prepared(copy: Path) -> None:
    code, output = run(copy, "prepare.py")
    assert code == 0, output
    assert check(copy / "config" / "demo") == []


def test_preparing_again_keeps_the_keys(copy: Path) -> None:
    run(copy, "prepare.py")
    keys = copy / "config" / "demo" / "keys"
    before = {path.name: path.read_bytes() for path in keys.iterdir()}
    code, output = run(copy, "prepare.py")
    assert code == 0, output
    assert {line.split()[0] for line in output.splitlines()} == {"kept"}
    assert {path.name: path.read_bytes() for path in keys.iterdir()} == before
    private = [path for path in keys.iterdir() if not path.name.endswith(".public.jwk")]
    assert {path.stat().st_mode & 0o077 for path in private} == {0}


# --- the report


@pytest.mark.parametrize(
    ("outcomes", "passed", "told"),
    [
        (["200", "200"], True, "2 x 200"),
        (["200"], False, "200"),
        (["200", "200", "200"], False, "3 x 200"),
        (["200", "503"], False, "200; 503"),
        ([], False, "nothing"),
    ],
)
def test_a_step_passes_only_with_exactly_what_was_expected(outcomes: list[str], passed: bool, told: str) -> None:
    step = Step("twice", "200", 2)
    for outcome in outcomes:
        step.took(0.0, outcome)
    assert step.passed is passed
    assert describe(step.got) == told


def test_a_report_names_what_differed() -> None:
    report = Report()
    report.fact("rows", "1 row", "1 row")
    assert report.failures == []
    report.fact("rows", "1 row", "2 rows")
    assert [step.got for step in report.failures] == [{"2 rows": 1}]


# --- the run


@pytest.mark.slow
def test_once_it_ends_with_everything_as_expected(copy: Path) -> None:
    needs(LACK is None, str(LACK))
    code, output = run(copy, "run.py", ONCE="1")
    assert code == 0, output
    assert "steps came out as expected" in output
    assert re.search(r"(?m)^([0-9]{3,}) exchanges, \1 receipts verified, log verified$", output), output
    lines = [line.strip() for line in output.splitlines() if " --key " in line]
    assert len(lines) == 2, output
    for line in lines:
        # The copy has its own data, and its commands name them; the programs are this checkout's.
        checked = subprocess.run(shlex.split(line), cwd=copy, capture_output=True, text=True, timeout=60, check=False)
        assert checked.returncode == 0, f"{line}\n{checked.stdout}{checked.stderr}"
        assert "verified" in checked.stdout
    code, output = run(copy, "run.py", ONCE="1")
    assert code == 0, f"the second run differs:\n{output}"


@pytest.mark.slow
def test_it_fails_when_more_leaves_the_bus_than_was_agreed(copy: Path) -> None:
    needs(LACK is None, str(LACK))
    path = copy / "config" / "demo" / "agreements" / "payroll-personnel.toml"
    text = path.read_text("utf-8")
    wider = text.replace('"/bank_account"]', '"/bank_account", "/home_address"]')
    assert wider != text
    path.write_text(wider, "utf-8")
    code, output = run(copy, "run.py", ONCE="1")
    assert code == 1, output
    (told,) = [line for line in output.splitlines() if line.startswith("Not as expected")]
    assert "home_address" in told


@pytest.mark.slow
def test_it_stays_up_for_the_calls_that_it_prints(copy: Path) -> None:
    needs(LACK is None, str(LACK))
    with start(copy, "run.py") as process:
        try:
            printed = list(until_it_stays_up(process))
            environment = dict(each.split("=", 1) for each in shlex.split(only(printed, "export "))[1:])
            calls = [line for line in printed if "gsb call " in line or "gsb exchanges " in line]
            assert len(calls) == 4, printed
            for line in calls:
                called = subprocess.run(
                    shlex.split(line),
                    cwd=copy,
                    env={**os.environ, **environment},
                    capture_output=True,
                    text=True,
                    timeout=60,
                    check=False,
                )
                assert called.returncode == 0, f"{line}\n{called.stdout}{called.stderr}"
        finally:
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=RUN_WITHIN)
    assert process.returncode == 0, rest


def until_it_stays_up(process: subprocess.Popen[str]) -> Iterator[str]:
    """Lines of the output up to the last command to try; all of them when it ends before."""
    assert process.stdout is not None
    calls = 0
    for line in process.stdout:
        yield line.strip()
        calls += "gsb call " in line or "gsb exchanges " in line
        if calls == 4:
            return


def only(lines: list[str], start: str) -> str:
    (found,) = [line for line in lines if line.startswith(start)]
    return found


@pytest.mark.slow
def test_over_kafka_and_postgresql_a_killed_worker_costs_time_and_nothing_else(copy: Path) -> None:
    needs(LACK is None, str(LACK))
    needs((lack := kafka.missing()) is None, f"{lack}")
    needs(postgres.programs() is not None, f"{postgres.MISSING}: make deps-test")
    code, output = run(copy, "run.py", ONCE="1", BACKEND="cluster")
    assert code == 0, output
    assert "worker 2 is killed" in output
    for step in ("people with two payslips", "exchanges with one outcome in the log", "worker 2 was killed"):
        assert re.search(rf"(?m)^ok  {step} .* as expected *$", output), output
    assert re.search(r"(?m)^([0-9]{3,}) exchanges, \1 receipts verified, log verified$", output), output


def test_two_tables_are_what_differs_beyond_one_machine(copy: Path) -> None:
    before = (copy / "config" / "demo" / "gsb.toml").read_text("utf-8")
    after = tomllib.loads(changed(before, "127.0.0.1:9092", "http://127.0.0.1:9"))
    embedded = tomllib.loads(before)
    assert (after["store"]["kind"], after["broker"]["brokers"]) == ("postgres", ["127.0.0.1:9092"])
    assert after["bus"]["base_urls"] == [*embedded["bus"]["base_urls"], "http://127.0.0.1:9"]
    for one in (after, embedded):
        del one["store"], one["bus"]["base_urls"]
    del after["broker"]
    assert after == embedded


def test_an_entry_more_is_an_outcome_too_many() -> None:
    accepted, ended = {"kind": "accepted", "exchange": "one"}, {"kind": "outcome", "exchange": "one", "state": "done"}
    by_hand = {"kind": "act", "exchange": "one", "state": "failed"}
    for said, once in (
        ([accepted, ended], 1),
        ([accepted], 0),
        ([accepted, ended, ended], 0),
        ([accepted, by_hand], 1),
    ):
        report = Report()
        count_outcomes(report, iter(said))
        assert report.steps[0].got == {f"{once} exchanges": 1}
        assert report.steps[0].passed is (once == 1)


@pytest.mark.parametrize(
    ("environment", "named"),
    [({"BACKEND": "oracle"}, "oracle"), ({"BACKEND": "cluster", "GSB_KAFKA_VERSION": "0.1"}, "0.1")],
)
def test_what_it_cannot_run_on_is_named_in_one_line(copy: Path, environment: dict[str, str], named: str) -> None:
    code, output = run(copy, "run.py", **environment)
    assert code == 2
    assert len(output.splitlines()) == 1
    assert named in output
    assert not (copy / "var").exists()


def test_a_taken_port_is_named_in_one_line(copy: Path) -> None:
    text = (copy / "config" / "demo" / "gsb.toml").read_text("utf-8")
    found = re.search(r"^operations_port = (\d+)", text, re.MULTILINE)
    assert found is not None
    with socket.create_server(("127.0.0.1", int(found[1]))):
        code, output = run(copy, "run.py", ONCE="1")
    assert code == 2
    assert len(output.splitlines()) == 1
    assert found[1] in output
    assert not (copy / "var" / "demo").exists()
