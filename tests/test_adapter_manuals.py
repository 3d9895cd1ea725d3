"""The adapters' manuals: every example in them is valid, and no setting is missing from them."""

from __future__ import annotations

import logging
import re
import tomllib
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from gsb.check import check
from gsb.config import Service, System
from gsb.installed import installed, load_adapter
from gsb.sdk import Context, Http, Refused, Reply
from gsb.sdk.manifest import GROUP, find_manifest
from tests.support.deployment import Deployment
from tests.support.sockets import answering
from tests.support.theatre import REQUEST

OURS = ["http_json", "sql", "tax"]
GUIDE = (Path(__file__).parents[1] / "adapters/README.md").read_text("utf-8")


def adapter(name: str) -> tuple[Any, str]:
    entry = next(found for found in entry_points(group=GROUP) if found.name == name)
    return entry.load(), (find_manifest(entry).parent / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", OURS)
def test_the_examples_are_valid(name: str, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "registry.txt").write_text("x")
    kind, manual = adapter(name)
    examples = re.findall(r"```toml\n(.*?)```", manual, re.DOTALL)
    assert examples
    for example in examples:
        system = example.startswith("# systems/")
        table = (System if system else Service).model_validate(tomllib.loads(example))
        model = kind.Settings if system else kind.ServiceSettings
        model.model_validate(table.settings, context={"folder": tmp_path})


@pytest.mark.parametrize("name", OURS)
def test_every_setting_is_explained(name: str) -> None:
    kind, manual = adapter(name)
    fields = {*kind.Settings.model_fields, *kind.ServiceSettings.model_fields}
    assert [field for field in sorted(fields) if f"`{field}`" not in manual] == []


async def test_an_adapter_of_ones_own_works_as_the_guide_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = dict(re.findall(r"`(\S+)`:\n\n```\w+\n(.*?)```", GUIDE, re.DOTALL))
    points = tomllib.loads(files.pop("pyproject.toml"))["project"]["entry-points"][GROUP]
    # What a package manager leaves behind.
    site = tmp_path / "site"
    files["land_book-1.0.dist-info/METADATA"] = "Metadata-Version: 2.1\nName: land-book\nVersion: 1.0\n"
    lines = [f"{name} = {value}" for name, value in points.items()]
    files["land_book-1.0.dist-info/entry_points.txt"] = "\n".join([f"[{GROUP}]", *lines])
    for name, text in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text, "utf-8")
    monkeypatch.syspath_prepend(str(site))
    deployment = Deployment(tmp_path)
    deployment.system("land", adapter="land_book", settings={"url": "https://land.example"})
    assert check(deployment.write()) == []

    kind = load_adapter("land_book", installed()).kind
    assert await looked_up(kind, b"200 OK", b'{"owner":"P-1"}') == Reply({"owner": "P-1"})
    with pytest.raises(Refused) as refused:
        await looked_up(kind, b"404 Not Found", b"")
    assert refused.value.code == "not_found"


async def looked_up(kind: Any, status: bytes, body: bytes) -> Reply:
    """What the guide's adapter makes of this answer."""
    head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
    async with answering(head + body) as land, Http(5.0) as http:
        log = logging.getLogger("gsb.system.land")
        context: Context[Any, Any] = Context("land", kind.Settings(url=land.url), {}, http, log)
        reply: Reply = await kind(context).handle(replace(REQUEST, body={"parcel": "L-1"}))
        assert land.requests[0].startswith(b"GET /parcels/L-1 ")
    return reply
