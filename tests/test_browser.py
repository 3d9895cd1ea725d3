"""The bus's pages in a browser: readable wide and narrow, light and dark, by eye, keyboard and screen reader.

``tests/browser/look.mjs`` looks and this file judges. ``GSB_PICTURES=FOLDER`` keeps pictures of what it saw.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gsb import jws
from tests.support.deployment import Deployment, standard
from tests.support.needs import needs
from tests.support.node import InProcess, node_in_process

BROWSER = Path(__file__).parent / "browser"
WITHIN = 240.0
LOOKS = [(1280, "light"), (1280, "dark"), (320, "light"), (320, "dark")]
OPENED = 2 * len(LOOKS)
"""How often a page is opened: at each look without scripts, and with them for axe."""

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def chromium() -> str:
    found = shutil.which("chromium")
    installed = all((BROWSER / "node_modules" / name).is_dir() for name in ("axe-core", "playwright-core"))
    needs(found is not None and shutil.which("node") is not None and installed, "chromium: run make deps-test")
    return str(found)


def deployment(root: Path) -> Deployment:
    """As standard, with a service for everyone and one with two grants."""
    made = standard(root)
    made.files["services/registry/mark/v1.toml"] |= {"public": True, "summary": "Marks a person's file."}
    pensions = {"service": "registry/person/v1", "purpose": "pensions", "fields": ["/id", "/phones"], "sub": True}
    made.agreement("a-2", grants=[pensions | {"rate": {"per_minute": 60, "burst": 10}}])
    return made


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[InProcess]:
    async with node_in_process(tmp_path, deployment(tmp_path)) as node:
        now = time.time()
        node.node.bus.clock = lambda: now  # what is signed before the browser starts is good until it has looked
        yield node


def signature(node: InProcess, agency: str, url: str) -> str:
    said: dict[str, Any] = {"issuer": agency, "audience": node.bus_id, "method": "GET", "target_uri": url}
    return jws.sign_request(node.deployment.key(agency), **said, body=b"", content_type=None, now=node.node.bus.clock())


def pictures(name: str) -> str | None:
    """Where pictures are kept, if they are."""
    if "GSB_PICTURES" not in os.environ:
        return None
    folder = Path(os.environ["GSB_PICTURES"]) / name
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder.resolve())


async def look(url: str, chromium: str, name: str, signatures: list[str] | None = None) -> list[dict[str, Any]]:
    """What is seen of a page, at each look."""
    job = {"url": url, "signatures": signatures or [], "chromium": chromium, "pictures": pictures(name)}
    process = await asyncio.create_subprocess_exec(
        "node",
        BROWSER / "look.mjs",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(WITHIN):
            seen, error = await process.communicate(json.dumps(job).encode())
    finally:
        if process.returncode is None:
            process.terminate()  # upon which it closes the browser
            await process.wait()
    assert process.returncode == 0, error.decode()
    looks: list[dict[str, Any]] = json.loads(seen)
    assert [(each["width"], each["scheme"]) for each in looks] == LOOKS
    return looks


def faults(url: str, seen: dict[str, Any]) -> list[object]:
    """Everything that is wrong with a look at a page."""
    wrong: list[object] = [*seen["said"], *seen["violations"], *seen["incomplete"]]
    if seen["statuses"] != [200, 200]:
        wrong.append(f"statuses {seen['statuses']}")
    if seen["asked"] != [url, url]:
        wrong.append(f"asked for {seen['asked']}")
    if seen["overflow"] > 0:
        wrong.append(f"{seen['overflow']} pixels wider than the screen")
    if seen["text"] != seen["textWithScripts"]:
        wrong.append("other text with scripts")
    keys = seen["keys"]
    if keys is not None and (keys["tabbed"] != keys["links"] or keys["unseen"]):
        wrong.append(f"Tab leads to {keys['tabbed']}, of which {keys['unseen']} do not show it")
    return wrong


@pytest.mark.parametrize(
    ("path", "agency", "said"),
    [
        ("/docs", None, "Marks a person's file."),
        ("/docs", "payroll", "60 a minute, 10 at once"),
        ("/problems/body_invalid", None, "The body does not fit the service's request schema."),
        ("/problems/store_unavailable", None, "store_unavailable"),
    ],
)
async def test_a_page_is_for_everyone(node: InProcess, chromium: str, path: str, agency: str | None, said: str) -> None:
    url = node.url + path
    signatures = [signature(node, agency, url) for _ in range(OPENED)] if agency else None
    looks = await look(url, chromium, f"{path[1:].replace('/', '-')}-{agency or 'anybody'}", signatures)
    assert [fault for seen in looks for fault in faults(url, seen)] == []
    for seen in looks:
        assert said in seen["text"]
        assert {"color-contrast", "html-has-lang", "link-name", "document-title"} <= set(seen["passed"])
    assert [seen["keys"] is not None for seen in looks] == [True, False, True, False]
    assert looks[0]["background"] != looks[1]["background"]


BAD = """<!DOCTYPE html><html><head><link rel="stylesheet" href="http://elsewhere.example/style.css"></head>
<body><p style="color: #ccc; background: #fff; width: 2000px">pale</p>
<a href="#x" tabindex="-1" style="outline: none">a</a>
<a href="#y" style="outline: none">b</a><script>document.body.append('written')</script></body></html>"""


async def test_a_bad_page_would_be_found(chromium: str) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(text=BAD, content_type="text/html")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        looks = await look(url, chromium, "bad")
    finally:
        await runner.cleanup()
    for seen in looks:
        found = {each["id"] for each in seen["violations"]}
        assert {"color-contrast", "html-has-lang", "document-title"} <= found
        said = " ".join(map(str, faults(url, seen)))
        for words in ("elsewhere.example", "wider than the screen", "other text with scripts"):
            assert words in said
        if seen["keys"] is not None:
            assert "Tab leads to ['#y'], of which ['#y']" in said
