"""The log as it is served: what anybody, an auditor and a cache get of it, and what nobody gets."""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

import aiohttp
import orjson
import pytest

from gsb.catalogue import build
from gsb.client import BusProblem
from gsb.errors import PathUnknown
from gsb.evidence.checkpoint import Signer, Verifier
from gsb.evidence.entry import make_entry
from gsb.evidence.tiles import bundle_path, tile_path, unpack
from gsb.evidence.verify import verify_log
from gsb.foundation import store_of
from gsb.metrics import Metrics
from gsb.model import Call
from gsb.resume import Ground, begin_anew
from gsb.trouble import Trouble
from gsb.web import log
from tests.support.bus import bus_of
from tests.support.deployment import standard
from tests.support.node import GSB, InProcess, node_in_process
from tests.support.reading import published, read, size_of

SIZE = 600
"""Entries at least: two full bundles and a partial one."""


@dataclass
class Served:
    """A node with a log of some size, its name and its key."""

    node: InProcess
    name: str
    verifier: Verifier
    size: int

    @property
    def folder(self) -> Path:
        return self.node.deployment.log_folder / self.name


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with node_in_process(tmp_path) as node:
        bus = node.node.bus
        notes = (bus.store.note(make_entry("act", bus.clock(), {"act": str(each)}, {})) for each in range(SIZE))
        await asyncio.gather(*notes)
        note = await published(node, holding=lambda note: size_of(note) > SIZE)
        origin = note.split(b"\n")[0].decode()
        verifier = Signer(origin, bus.catalogue.log_key).verifier
        yield Served(node, origin.rpartition("/")[2], verifier, size_of(note))


async def get(url: str, **headers: str) -> tuple[aiohttp.ClientResponse, bytes]:
    """The answer and its body as it came, still coded if it was."""
    async with (
        aiohttp.ClientSession(auto_decompress=False, headers={"Accept-Encoding": "identity"}) as session,
        session.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()}) as answer,
    ):
        return answer, await answer.read()


# --- checkpoints


async def test_anybody_gets_the_checkpoint_at_both_ports(served: Served) -> None:
    for url in (served.node.url, served.node.operations_url):
        for path in ("/log/checkpoint", f"/log/{served.name}/checkpoint"):
            answer, note = await get(url + path)
            assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
            assert served.verifier.open(note).text.startswith(f"{served.verifier.name}\n{served.size}\n")
            assert note == (served.folder / "checkpoint").read_bytes()
            assert answer.headers["Cache-Control"] == "max-age=2"
            assert "GSB-Signature" not in answer.headers
            age = served.node.node.bus.clock() - parsedate_to_datetime(answer.headers["Last-Modified"]).timestamp()
            assert 0 <= age < 60


async def test_a_checkpoint_that_is_known_is_not_sent_again(served: Served) -> None:
    url = f"{served.node.url}/log/checkpoint"
    answer, _ = await get(url)
    tag = answer.headers["ETag"]
    assert tag.startswith('"')  # a strong one
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer, body = await get(url, If_None_Match=known)
        assert (answer.status, body) == (304, b"")
        assert answer.headers["ETag"] == tag
        assert "Last-Modified" in answer.headers
    for other in ('"other"', tag.strip('"'), ""):
        answer, _ = await get(url, If_None_Match=other)
        assert answer.status == 200


async def test_before_the_first_there_is_none(tmp_path: Path) -> None:
    async with bus_of(standard(tmp_path)) as hands:
        with pytest.raises(PathUnknown):
            await log.checkpoint(hands.bus, Call("GET", "/log/checkpoint", b"", 0.0))


@pytest.mark.parametrize(
    "path", ["/log", "/log/", "/log/2019/checkpoint", "/log/tile/checkpoint", "/log/x/y/checkpoint"]
)
async def test_what_is_no_log_has_no_checkpoint(served: Served, path: str) -> None:
    for url in (served.node.url, served.node.operations_url):
        answer, body = await get(url + path)
        assert (answer.status, orjson.loads(body)["code"]) == (404, "path_unknown")


async def test_an_old_log_stays_where_it_was(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    async with node_in_process(tmp_path, deployment) as node:
        old = (await published(node)).split(b"\n")[0].decode()
    catalogue = build(deployment.folder)
    store = store_of(catalogue, Metrics())
    await store.open()
    await begin_anew(Ground.of(catalogue, store), time.time(), "a drill")
    await store.close()
    async with node_in_process(tmp_path, deployment) as node:
        note = await published(node, holding=lambda note: not note.startswith(f"{old}\n".encode()))
        new = note.split(b"\n")[0].decode()
        for origin in (old, new):
            verifier = Signer(origin, node.node.bus.catalogue.log_key).verifier
            name = origin.rpartition("/")[2]
            answer, note = await get(f"{node.url}/log/{name}/checkpoint")
            assert answer.status == 200
            assert verifier.open(note).text.startswith(f"{origin}\n")
            path = bundle_path(0, size_of(note))
            answer, bundle = await get(f"{node.operations_url}/log/{name}/{path}")
            assert orjson.loads(unpack(bundle)[0])["log"] == origin
        _, newest = await get(f"{node.operations_url}/log/{path}")
        assert newest == bundle


# --- tiles and bundles, on the operations port


@pytest.mark.parametrize("named", [True, False])
async def test_the_whole_log_can_be_verified_over_the_operations_port(served: Served, named: bool) -> None:
    base = f"{served.node.operations_url}/log" + (f"/{served.name}" if named else "")
    caches = set()

    async def fetch(path: str) -> bytes | None:
        answer, body = await get(f"{base}/{path}")
        caches.add((path == "checkpoint", answer.headers.get("Cache-Control")))
        return body if answer.status == 200 else None

    loop = asyncio.get_running_loop()
    found = await asyncio.to_thread(
        verify_log, lambda path: asyncio.run_coroutine_threadsafe(fetch(path), loop).result(90), served.verifier
    )
    assert found.checkpoint.size == served.size
    # What lies below the log's own name is there for ever; what lies below the newest log's is another's next year.
    kept = "max-age=31536000, immutable" if named else "no-cache"
    assert caches == {(True, "max-age=2"), (False, kept)}


async def test_a_tile_that_is_known_is_not_sent_again(served: Served) -> None:
    url = f"{served.node.operations_url}/log/{served.name}/{tile_path(0, 0)}"
    answer, body = await get(url)
    assert (answer.status, len(body), answer.headers["Content-Type"]) == (200, 8_192, "application/octet-stream")
    again, body = await get(url, If_None_Match=answer.headers["ETag"])
    assert (again.status, body, again.headers["Cache-Control"]) == (304, b"", "max-age=31536000, immutable")
    other, _ = await get(url.replace("/000", "/001"), If_None_Match=answer.headers["ETag"])
    assert other.status == 200


@pytest.mark.parametrize("accepted", ["gzip", "br, gzip;q=0.5", "deflate;q=1.0, GZIP"])
async def test_a_bundle_is_compressed_for_whoever_takes_it(served: Served, accepted: str) -> None:
    url = f"{served.node.operations_url}/log/{served.name}/{bundle_path(0)}"
    plain, content = await get(url)
    packed, coded = await get(url, Accept_Encoding=accepted)
    assert ("Content-Encoding" in plain.headers, packed.headers["Content-Encoding"]) == (False, "gzip")
    assert gzip.decompress(coded) == content
    assert len(coded) < len(content) * 0.7
    assert len(unpack(content)) == 256
    assert plain.headers["ETag"] != packed.headers["ETag"]  # two representations: RFC 9110, section 8.8.3.3
    assert {plain.headers["Vary"], packed.headers["Vary"]} == {"Accept-Encoding"}
    known, body = await get(url, Accept_Encoding=accepted, If_None_Match=packed.headers["ETag"])
    assert (known.status, body, known.headers["ETag"]) == (304, b"", packed.headers["ETag"])


@pytest.mark.parametrize("accepted", ["identity", "", "br", "gzip;q=0", "gzip; q=0.000", "gzippy"])
async def test_a_bundle_is_plain_for_everybody_else(served: Served, accepted: str) -> None:
    answer, content = await get(
        f"{served.node.operations_url}/log/{served.name}/{bundle_path(0)}", Accept_Encoding=accepted
    )
    assert "Content-Encoding" not in answer.headers
    assert len(unpack(content)) == 256


async def test_hashes_are_never_compressed(served: Served) -> None:
    answer, body = await get(
        f"{served.node.operations_url}/log/{served.name}/{tile_path(0, 0)}", Accept_Encoding="gzip"
    )
    assert ("Content-Encoding" in answer.headers, len(body)) == (False, 8_192)


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/3",
        "tile/0/0000",
        "tile/0/x000/000",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/007",
        "tile/entries/000/",
        "tile//000",
        "tile/../checkpoint",
        "tile/0/%30%30%30",
        "tile/0/999",
        "tile/7/000",
        "tile/0/002.p/255",
        "tile/entries/002",
        "tile/entries/x001/000",
        "../store/store.db",
        "tile/0/.000.new",
    ],
)
async def test_what_the_log_has_not_is_not_there(served: Served, path: str) -> None:
    for prefix in ("/log/", f"/log/{served.name}/"):
        # As raw as a client could send it: nothing on the way makes a nicer path of it.
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(served.node.operations_url))
        writer.write(f"GET {prefix}{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        said = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert said.startswith(b"HTTP/1.1 404 ")
        assert b'"code":"path_unknown"' in said


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def test_a_file_that_is_gone_is_told_apart_from_one_that_never_was(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    base = f"{served.node.operations_url}/log/{served.name}/"
    edge = served.size - 512
    outgrown = tile_path(0, 0, 255)  # perhaps there was a checkpoint of this size, perhaps not
    answer, _ = await get(base + outgrown)
    assert answer.status == 404
    bus = served.node.node.bus
    for path in (tile_path(0, 1), bundle_path(0), tile_path(0, 2, edge), tile_path(1, 0, 2)):
        content = (served.folder / path).read_bytes()
        (served.folder / path).unlink()
        caplog.clear()
        bus.log_files = Trouble(logging.getLogger("gsb"), "it is over")
        for _ in range(3):
            answer, body = await get(base + path)
            assert (answer.status, orjson.loads(body)["code"]) == (503, "log_unavailable")
            assert "Retry-After" in answer.headers
        (told,) = [record.message for record in caplog.records if record.levelno >= logging.ERROR]  # once, not thrice
        assert f"{path} is missing" in told
        assert str(served.folder) in told  # and what to do about it
        (served.folder / path).write_bytes(content)
        answer, _ = await get(base + path)
        assert (answer.status, caplog.records[-1].message) == (200, "it is over")


async def test_a_file_that_cannot_be_read_is_no_404(served: Served) -> None:
    path = served.folder / bundle_path(1)
    path.unlink()
    path.mkdir()
    answer, body = await get(f"{served.node.operations_url}/log/{served.name}/{bundle_path(1)}")
    assert (answer.status, orjson.loads(body)["code"]) == (503, "log_unavailable")


# --- at the API, for auditors


async def test_an_auditor_verifies_the_log_with_signed_calls(served: Served) -> None:
    before = served.size
    ran = await verify_command(served, f"{served.node.url}/log", "--auditor", "aude")
    assert ran == (0, f"log verified: {served.verifier.name}, {before} entries"), ran
    # Who reads leaves no entry: a log that grew by being read would never be read to its end.
    assert size_of(await published(served.node)) == before


async def verify_command(served: Served, *words: str) -> tuple[int, str]:
    deployment = served.node.deployment
    keys = deployment.secrets / "bus.jwks.json"
    keys.write_bytes(orjson.dumps({"keys": [deployment.bus_key().public.jwk]}))
    signing: list[str | Path] = ["--auditor-key", deployment.key_file("aude"), "--bus-keys", keys]
    process = await asyncio.create_subprocess_exec(
        GSB,
        *("log", "verify", *words, "--key", served.verifier.vkey, "--bus", served.node.bus_id),
        *signing,
        env={**os.environ, "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(120):
        said, _ = await process.communicate()
    return process.returncode or 0, said.decode().partition(", root ")[0]


async def test_the_command_reads_the_operations_port_unsigned(served: Served) -> None:
    ran = await verify_command(served, f"{served.node.operations_url}/log")
    assert ran == (0, f"log verified: {served.verifier.name}, {served.size} entries"), ran
    code, said = await verify_command(served, f"{served.node.url}/log")
    assert code == 2
    assert "status 401" in said


@pytest.mark.parametrize(
    ("owner", "code"), [("payroll", "operator_required"), ("olive", "role_missing"), ("ines", "role_missing")]
)
async def test_files_at_the_api_are_for_auditors_alone(served: Served, owner: str, code: str) -> None:
    async with served.node.client(owner) as client:
        with pytest.raises(BusProblem) as refused:
            await client.log_file(f"{served.name}/{tile_path(0, 0)}")
    assert (refused.value.status, refused.value.code, refused.value.signed) == (403, code, True)
    # The refusal is proved, like every other after authentication.
    await published(served.node, holding=lambda note: size_of(note) > served.size)


async def test_a_signed_file_is_neither_coded_nor_kept(served: Served) -> None:
    path = f"/log/{served.name}/{bundle_path(0)}"
    answer, content = await read(served.node, path, "aude", Accept_Encoding="gzip")
    assert (answer.status, content) == (200, (served.folder / bundle_path(0)).read_bytes())
    assert answer.headers["Cache-Control"] == "no-store, no-transform"
    assert "GSB-Signature" in answer.headers
    assert not {"ETag", "Content-Encoding"} & {*answer.headers}
    async with served.node.client("aude") as client:  # which believes only what is signed for it
        assert await client.log_file(path.removeprefix("/log/")) == content
        assert await client.log_file(f"{served.name}/{tile_path(0, 99)}") is None
