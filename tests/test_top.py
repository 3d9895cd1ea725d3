"""``gsb top``: what it makes of two readings, and the command against a node, with and without a terminal."""

from __future__ import annotations

import asyncio
import io
import math
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import orjson
import pytest
from rich.console import Console

from gsb.cli.top import Between, Reading, picture, quantile, read, summary
from gsb.metrics import Metrics
from gsb.model import State
from tests.support.bus import PERSON_BODY, READ
from tests.support.deployment import free_ports
from tests.support.node import GSB, InProcess, node_in_process
from tests.support.sockets import answering, http

SERVICE, SYSTEM = "registry/person/v1", "registry"


def metrics() -> Metrics:
    made = Metrics()
    made.known("d", services=[SERVICE], systems=[SYSTEM], agencies=["payroll"])
    made.serve("api", ["POST /services/{service}"], lambda: 4)
    return made


def reading(made: Metrics, at: float, breaker: str = "closed") -> Reading:
    standing = {State.WAITING: 2, State.HELD: 1}
    return read(made.text({SYSTEM: breaker}, standing).decode(), at)


def rendered(between: Between) -> str:
    console = Console(width=120, file=io.StringIO())
    console.print(picture(summary(between)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# --- quantiles


@pytest.mark.parametrize(
    ("q", "counts", "expected"),
    [
        (0.5, [0, 0, 0], None),
        (0.5, [10, 10, 10], 0.5),
        (0.99, [10, 10, 10], 0.99),
        (0.5, [0, 10, 10], 1.5),
        (0.5, [5, 10, 10], 1.0),
        (0.75, [5, 10, 10], 1.5),
        (0.99, [0, 0, 7], 2.0),
        (0.5, [6, 6, 10], 5 / 6),
        (0.99, [6, 6, 10], 2.0),
    ],
)
def test_a_quantile_lies_within_its_bucket(q: float, counts: list[float], expected: float | None) -> None:
    found = quantile(q, zip([1.0, 2.0, math.inf], counts, strict=True))
    assert found == pytest.approx(expected) if expected is not None else found is None


def test_no_buckets_have_no_quantile() -> None:
    assert quantile(0.5, []) is None


# --- two readings


def test_rates_and_quantiles_are_of_the_time_between_two_readings() -> None:
    made = metrics()
    for _ in range(100):
        made.service(SERVICE).ended(State.DONE, 5.0)
        made.system(SYSTEM).called("answered", 5.0)
    before = reading(made, 10.0)
    for number in range(20):
        made.service(SERVICE).accepted.inc()
        made.service(SERVICE).ended(State.FAILED if number < 2 else State.DONE, 0.009)
        made.system(SYSTEM).called("unavailable" if number < 4 else "answered", 0.004)
        made.answered("POST /services/{service}", 200, None, "payroll")
    made.service(SERVICE).stalled(State.UNKNOWN)
    made.answered("POST /services/{service}", 422, "body_invalid", "payroll")
    made.committed(5, 0.0015)
    found = summary(Between(before, reading(made, 14.0, "open")))
    (service,), (system,) = found["services"], found["systems"]
    assert (service["accepted_rate"], service["ended_rate"], service["errors_rate"]) == (5, 5, 0.75)
    assert 0.0075 < service["p50"] < service["p99"] <= 0.01
    assert (system["breaker"], system["calls_rate"], system["unavailable_rate"]) == ("open", 5, 1)
    assert 0.003 < system["p50"] < system["p99"] <= 0.005
    assert found["problems"] == [{"code": "body_invalid", "count": 1}]
    assert found["node"] == {
        "catalogue": "d",
        "calls_rate": {"2xx": 5, "4xx": 0.25, "5xx": 0},
        "calls_in_flight": 4,
        "waiting": 2,
        "held": 1,
        "unknown": 0,
        "commits_rate": 0.25,
        "commits_p99": pytest.approx(0.00199),
    }


def test_a_first_reading_has_no_rates_but_tells_of_the_whole_time() -> None:
    made = metrics()
    made.service(SERVICE).ended(State.DONE, 0.009)
    found = summary(Between(None, reading(made, 10.0)))
    (service,) = found["services"]
    assert (service["ended_rate"], service["errors_rate"]) == (None, None)
    assert 0.0075 < service["p50"] <= 0.01


def test_a_node_that_was_started_anew_counts_from_zero() -> None:
    old, new = metrics(), metrics()
    for _ in range(50):
        old.service(SERVICE).ended(State.DONE, 5.0)
    for _ in range(4):
        new.service(SERVICE).ended(State.DONE, 0.009)
    (service,) = summary(Between(reading(old, 0.0), reading(new, 2.0)))["services"]
    assert service["ended_rate"] == 2
    assert service["p99"] <= 0.01


def test_what_is_not_named_is_shown_once_it_is_counted() -> None:
    made = metrics()
    assert len(summary(Between(None, reading(made, 0.0)))["services"]) == 1
    made.service("gone/service/v1").accepted.inc()
    assert [each["service"] for each in summary(Between(None, reading(made, 0.0)))["services"]] == ["other", SERVICE]


def test_the_picture_shows_what_there_is_and_dashes_for_what_there_is_not() -> None:
    made = metrics()
    before = reading(made, 0.0)
    for _ in range(30):
        made.service(SERVICE).ended(State.DONE, 0.0042)
    lines = rendered(Between(before, reading(made, 2.0, "half_open"))).splitlines()
    service = next(line.split() for line in lines if line.startswith(SERVICE))
    system = next(line.split() for line in lines if line.startswith(f"{SYSTEM} "))
    assert service[:4] == [SERVICE, "0.0", "15.0", "0.0"]
    assert service[-1] == "0"
    assert system[1] == "half_open"
    assert system[-2:] == ["-", "-"]
    assert "held 1" in lines[0]


def test_nothing_that_a_terminal_would_obey_is_shown() -> None:
    made = Metrics()
    made.known("d", services=["x\x1b[2Jx/y/v1"], systems=["\x1b]0;x\x07"], agencies=[])
    assert not set(rendered(Between(None, reading(made, 0.0)))) & {"\x1b", "\x07"}


@pytest.mark.parametrize(
    "text", ["", "<html>hello</html>", "up 1\n", "gsb_info_bucket 1\n", "\x00{", 'gsb_info{version="']
)
def test_what_is_no_reading_of_a_bus_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(text, 0.0)


# --- the command


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[InProcess]:
    async with node_in_process(tmp_path) as node:
        yield node


async def started(url: str, *words: str, output: int = asyncio.subprocess.PIPE) -> asyncio.subprocess.Process:
    environment = {"PATH": "/usr/bin:/bin", "TERM": "xterm", "GSB_OPERATIONS_URL": url}
    # A shell starts what runs in the background deaf to Ctrl-C, and its children inherit that.
    hearing = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return await asyncio.create_subprocess_exec(
        GSB,
        "top",
        *words,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=hearing,
    )


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    async with asyncio.timeout(90):
        said, wrong = await process.communicate()
    return process.returncode or 0, (said or b"").decode(), wrong.decode()


@asynccontextmanager
async def traffic(node: InProcess) -> AsyncIterator[None]:
    """Calls one after the other until the body ends."""

    async def send() -> None:
        async with node.client() as client:
            while True:
                await client.call(READ, PERSON_BODY, purpose="payroll")

    sending = asyncio.create_task(send())
    try:
        yield
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def test_once_for_machines(node: InProcess) -> None:
    async with traffic(node):
        code, said, wrong = await ended(await started(node.operations_url, "--once", "--json", "--interval", "0.5"))
    assert (code, wrong) == (0, "")
    found = orjson.loads(said)
    service = next(each for each in found["services"] if each["service"] == READ)
    assert service["ended_rate"] > 0
    assert 0 < service["p50"] <= service["p99"]
    assert found["systems"][0]["breaker"] == "closed"
    assert found["node"]["calls_rate"]["2xx"] > 0
    assert found["node"]["held"] == 0


async def test_once_for_people(node: InProcess) -> None:
    code, said, wrong = await ended(await started(node.operations_url, "--once", "--interval", "0.1"))
    assert (code, wrong) == (0, "")
    assert READ in said
    assert "\x1b" not in said


async def test_without_a_terminal_it_goes_on_until_it_is_interrupted(node: InProcess) -> None:
    process = await started(node.operations_url, "--json", "--interval", "0.1")
    assert process.stdout is not None
    async with asyncio.timeout(90):
        lines = [orjson.loads(await process.stdout.readline()) for _ in range(2)]
    process.send_signal(signal.SIGINT)
    code, _, wrong = await ended(process)
    assert (code, wrong) == (0, "")
    assert [line["systems"][0]["system"] for line in lines] == ["registry", "registry"]


async def test_on_a_terminal_it_is_live_until_it_is_interrupted(node: InProcess) -> None:
    ours, its = os.openpty()
    process = await started(node.operations_url, "--interval", "0.1", output=its)
    os.close(its)
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", 0))
    seen = b""
    try:
        async with asyncio.timeout(90):
            while seen.count(READ.encode()) < 3:
                seen += await reader.read(4096)
        process.send_signal(signal.SIGINT)
        code, _, wrong = await ended(process)
    finally:
        transport.close()
    assert (code, wrong) == (0, "")
    assert b"\x1b[" in seen


async def test_a_node_that_cannot_be_reached_is_one_line_and_code_6() -> None:
    (port,) = free_ports(1)
    code, said, wrong = await ended(await started(f"http://127.0.0.1:{port}", "--once"))
    assert (code, said, len(wrong.splitlines())) == (6, "", 1)
    assert wrong.startswith(f"gsb: unreachable: http://127.0.0.1:{port}/metrics: ")


async def test_a_node_that_goes_away_ends_it(tmp_path: Path) -> None:
    async with node_in_process(tmp_path) as node:
        process = await started(node.operations_url, "--interval", "0.1", "--json")
        assert process.stdout is not None
        async with asyncio.timeout(90):
            await process.stdout.readline()
    code, _, wrong = await ended(process)
    assert (code, len(wrong.splitlines())) == (6, 1)


@pytest.mark.parametrize(
    "answer", [http(b"<html>", "200 OK"), http(b"", "404 Not Found"), http(b"", "302 Found", "Location: /elsewhere")]
)
async def test_what_is_no_bus_is_one_line_and_code_6(answer: bytes) -> None:
    async with answering(answer) as server:
        code, said, wrong = await ended(await started(server.url, "--once"))
    assert (code, said, len(wrong.splitlines())) == (6, "", 1)


async def test_what_is_no_url_is_code_2() -> None:
    code, _, wrong = await ended(await started("localhost:9100", "--once"))
    assert (code, wrong) == (2, "gsb: not a URL: localhost:9100\n")
