"""``gsb call`` against a real node: what it prints, and how it exits."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from gsb.sdk import Refused, Unavailable
from tests.support.bus import NOTE, ONCE, PERSON_BODY, READ, answering, puppet, puppet_deployment, raising
from tests.support.deployment import BUS, PERSON
from tests.support.node import GSB, InProcess, node_in_process

BODY = orjson.dumps(PERSON_BODY).decode()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[InProcess]:
    async with node_in_process(tmp_path, puppet_deployment(tmp_path)) as node:
        puppet().reset()
        yield node
        puppet().reset()


async def call(node: InProcess, *words: str, purpose: str = "payroll", **variables: str) -> tuple[int, str, str]:
    """The command as an agency gives it; its exit code, output and errors."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "GSB_URL": node.url,
        "GSB_BUS": BUS,
        "GSB_AGENCY": "payroll",
        "GSB_KEY": str(node.deployment.key_file("payroll")),
    } | variables
    return await ended(str(GSB), "call", *words, "--purpose", purpose, environment=environment)


async def ended(*words: str, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *words, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(120):
        said, wrong = await process.communicate()
    return process.returncode or 0, said.decode(), wrong.decode()


async def test_the_reply_is_printed_and_the_exchange_named(node: InProcess) -> None:
    puppet().acts = answering(PERSON)
    code, said, wrong = await call(node, READ, "--data", BODY)
    assert (code, orjson.loads(said)["name"]) == (0, "Ada")
    assert wrong.endswith(": done, effect none; signature verified\n")


async def test_what_was_not_waited_for_is_had_later_under_the_key_that_is_told(node: InProcess) -> None:
    puppet().acts = raising(Unavailable("closed", sent=False, after=0.0))
    code, said, wrong = await call(node, ONCE, "--data", orjson.dumps(NOTE).decode(), "--async")
    exchange = orjson.loads(said)["exchange"]
    assert code == 0
    puppet().acts = answering(NOTE)
    hint = shlex.split(wrong.partition("call again with ")[2])
    code, said, wrong = await call(node, ONCE, "--data", orjson.dumps(NOTE).decode(), *hint, "--json")
    told = orjson.loads(said)
    assert (code, told["exchange"], told["state"], told["replayed"]) == (0, exchange, "done", True)
    assert told["idempotency_key"] == hint[1]


async def test_a_refusal_is_told_to_machines_whole(node: InProcess) -> None:
    puppet().acts = raising(Refused("not_found"))
    code, said, wrong = await call(node, READ, "--data", BODY, "--json")
    told = orjson.loads(said)
    assert (code, told["state"], told["body"]["code"]) == (4, "refused", "system_refused")
    assert f"exchange {told['exchange']}: refused, effect none" in wrong


@pytest.mark.parametrize(
    ("words", "purpose", "url", "says"),
    [
        ([], "Pay roll", None, "claim purpose"),
        (["--print"], "Pay roll", None, "claim purpose"),
        (["--print"], "payroll", "bus.example", "is no base URL"),
        ([], "payroll", "http://bus.example", "only over TLS or loopback"),
    ],
)
async def test_what_cannot_be_sent_is_told_in_a_line(
    node: InProcess, words: list[str], purpose: str, url: str | None, says: str
) -> None:
    variables = {"GSB_URL": url} if url else {}
    code, said, wrong = await call(node, READ, "--data", BODY, *words, purpose=purpose, **variables)
    assert (code, said) == (2, "")
    (line,) = wrong.splitlines()
    assert line.startswith("gsb: ")
    assert says in line


async def test_the_printed_line_makes_the_call(node: InProcess) -> None:
    puppet().acts = answering(PERSON)
    code, said, _ = await call(node, READ, "--data", BODY, "--print")
    assert code == 0
    code, said, _ = await ended("sh", "-c", said)
    assert (code, said.split()[1]) == (0, "200")
