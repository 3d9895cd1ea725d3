"""The command ``gsb`` as an operator gives it, in a process of its own, to a node that runs."""

from __future__ import annotations

import asyncio
import os

import orjson

from tests.support.node import GSB, Reachable


async def gsb(node: Reachable, *words: str, operator: str = "olive", said: bytes = b"") -> tuple[int, str, str]:
    """Its exit code, output and errors; ``said`` is its input."""
    keys = node.deployment.secrets / "bus.jwks.json"
    keys.write_bytes(orjson.dumps({"keys": [node.deployment.bus_key().public.jwk]}))
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "GSB_OPERATIONS_URL": node.operations_url,
        "GSB_BUS": node.bus_id,
        "GSB_OPERATOR": operator,
        "GSB_OPERATOR_KEY": str(node.deployment.key_file(operator)),
        "GSB_BUS_KEYS": str(keys),
    }
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(GSB, *words, env=environment, stdin=pipe, stdout=pipe, stderr=pipe)
    async with asyncio.timeout(120):
        out, wrong = await process.communicate(said)
    return process.returncode or 0, out.decode(), wrong.decode()
