"""The built image serves a signed call where it can write nothing but its volume, and holds nothing but the bus.

``make image-test`` runs it, since it needs the image; the other tests do not find it. The rules that need no image are
in ``test_image``.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

from gsb.evidence.checkpoint import Verifier
from tests.image.chamber import NAME, ROOT, SITE, USER, Chamber, Image, mounted, readable, version
from tests.support.command import gsb
from tests.support.deployment import Deployment, closed
from tests.support.node import RunningNode, running_node
from tests.support.reading import published

TOOLS = ROOT / ".deps" / "image" / "bin" / "python"
PERSON = {"id": "P-1"}
PROGRAMS = {"gsb", "python", "python3", "python3.11"}
"""Everything that can be executed by its name, wherever it lies."""
NOT_NEEDED = {
    "awk": "the scripts of base-files",
    "debconf": "questions of packages' scripts",
    "libdb5.3": "the module dbm.ndbm, which is left out",
    "libncursesw6": "the module curses, which is left out",
    "libnsl2": "the module nis, which is left out",
    "libreadline8": "the module readline, which is left out",
    "libtinfo6": "the module curses, which is left out",
    "libtirpc3": "the module nis, which is left out",
    "openssl": "the scripts of ca-certificates",
}
"""What packages of the image depend on and do not get, with who would need it."""
IMPORT_ALL = """
import importlib, importlib.metadata, pkgutil, sys
from pathlib import Path
names = {each.name.split(".")[0] for each in Path("/usr/lib/python3.11/lib-dynload").glob("*.so")}
for found in importlib.metadata.distributions():
    tops = {each.parts[0] for each in found.files if each.suffix in {".py", ".so"}}
    names |= {top.split(".")[0] for top in tops if not top.startswith((".", "__"))}
for package in ("gsb", "gsb_adapters"):
    spec = importlib.import_module(package)
    names |= {each.name for each in pkgutil.walk_packages(spec.__path__, package + ".") if "__main__" not in each.name}
for name in sorted(names):
    importlib.import_module(name)
print(len(names))
"""
WRITE = """
import errno, os, sys
for folder in sys.argv[1:]:
    try:
        open(os.path.join(folder, "written"), "w").close()
    except OSError as error:
        print(folder, errno.errorcode[error.errno])
    else:
        os.unlink(os.path.join(folder, "written"))
        print(folder, "written")
"""


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    with mounted() as found:
        yield found


def personnel(tmp_path: Path) -> tuple[Deployment, Path]:
    """A deployment with a service over a database of its volume, and that volume."""
    data = tmp_path / "data"
    data.mkdir()
    with closing(sqlite3.connect(data / "people.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE people (id TEXT PRIMARY KEY, name TEXT NOT NULL)")
        connection.execute("INSERT INTO people VALUES ('P-1', 'Ada')")
    deployment = Deployment(tmp_path)
    deployment.gsb["store"]["path"] = "/var/lib/gsb/store.sqlite"
    deployment.gsb["log"]["path"] = "/var/lib/gsb/log"
    deployment.system("hrmis", adapter="sql", settings={"url": "sqlite+aiosqlite:////var/lib/gsb/people.sqlite"})
    name = {"name": {"type": "string"}}
    deployment.service(
        "hrmis/person/v1",
        request=closed({"id": {"type": "string"}}, PERSON),
        reply=closed(name, {"name": "Ada"}),
        settings={
            "statement": "SELECT name FROM people WHERE id = :id",
            "parameters": {"id": "body.id"},
            "reply": {"name": "rows[0].name"},
            "empty": "not_found",
        },
    )
    grant = {"service": "hrmis/person/v1", "purpose": "payroll", "fields": ["/name"]}
    deployment.agreement("a-1", grants=[grant])
    for path in (data, *data.iterdir()):
        os.chown(path, USER, USER)
    return deployment, data


@pytest.fixture
def chamber(image: Image, tmp_path: Path) -> Chamber:
    deployment, data = personnel(tmp_path)
    readable(deployment.write())
    return Chamber(image, deployment.folder, data)


# --- it serves


async def proven(node: RunningNode, verifier: Verifier, folder: Path) -> Path:
    """A signed call from outside, and the file with its receipt, which the log's key alone verifies."""
    async with node.client() as client:
        result = await client.call("hrmis/person/v1", PERSON, purpose="payroll")
        assert (result.body, result.state) == ({"name": "Ada"}, "done")
        receipt = folder / "receipt"
        receipt.write_bytes(await client.receipt(result.exchange or ""))
    words = ("receipt", "verify", str(receipt), "--key", verifier.vkey)
    code, told, wrong = await gsb(node, *words)
    assert code == 0, wrong
    assert json.loads(told)["exchange"] == result.exchange
    return receipt


def smoke(node: RunningNode, chamber: Chamber, verifier: Verifier) -> str:
    """What the chart's ``helm test`` says, run in the image as its pod runs it."""
    key = chamber.lay(node.deployment.key_file("payroll"), "payroll.jwk")
    said = {"GSB_URL": node.url, "GSB_BUS": node.bus_id, "GSB_AGENCY": "payroll", "GSB_KEY": key}
    said |= {"GSB_LOG_KEY": verifier.vkey, "SMOKE_SERVICE": "hrmis/person/v1", "SMOKE_PURPOSE": "payroll"}
    script = chamber.lay(ROOT / "helm/gsb/files/smoke.py", "smoke.py")
    return chamber.run("python", script, SMOKE_BODY=json.dumps(PERSON), **said)


def facts(pid: int) -> dict[str, str]:
    """What the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def test_it_serves_a_signed_call_on_a_root_that_it_cannot_write(image: Image, tmp_path: Path) -> None:
    deployment, data = personnel(tmp_path)
    readable(deployment.write())
    chamber = Chamber(image, deployment.folder, data)
    command = chamber.command(*image.said["Entrypoint"], *image.said["Cmd"])
    async with running_node(tmp_path, deployment, command=command) as node:
        origin = (await published(node)).partition(b"\n")[0].decode()
        verifier = deployment.log_verifier(origin.rpartition("/")[2])
        receipt = await proven(node, verifier, tmp_path)
        said = facts(node.pid)
        assert set(said["Uid"].split()) == set(said["Gid"].split()) == {str(USER)}
        assert said["Groups"] == ""
        assert {int(said[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
        examined = chamber.run("gsb", "doctor", "--config", "/etc/gsb")
        assert f"node: ready, at {node.operations_url}" in examined
        worse = [line for line in examined.splitlines() if line.startswith(("WARNING", "TROUBLE"))]
        assert [line.split(":")[0] for line in worse] == ["WARNING  witness"], worse
        words = ("gsb", "receipt", "verify", chamber.lay(receipt, "receipt"), "--key", verifier.vkey)
        assert "receipt verified" in chamber.run(*words)
        assert "its receipt is in the evidence log" in smoke(node, chamber, verifier)
    assert {each.name for each in data.iterdir() if each.stat().st_uid == USER} >= {"store.sqlite", "log"}


def test_nothing_but_its_volume_and_tmp_can_be_written(chamber: Chamber, image: Image) -> None:
    folders = ["/", *(f"/{each.name}" for each in image.root.iterdir() if each.is_dir() and not each.is_symlink())]
    refused = {"/proc": "ENOENT", "/dev": "EACCES", "/root": "EACCES"}
    wanted = {each: refused.get(each, "EROFS") for each in (*folders, f"/{SITE}", "/etc/gsb")}
    wanted |= {"/tmp": "written", "/var/lib/gsb": "written"}
    told = dict(line.split() for line in chamber.python(WRITE, *wanted).splitlines())
    assert told == wanted


def test_it_reads_a_deployment_as_its_user(chamber: Chamber) -> None:
    assert "nothing wrong" in chamber.run("gsb", "check", "/etc/gsb")
    assert chamber.run("gsb", "--version") == f"gsb {version()}\n"


# --- what it is made of


def test_it_says_what_it_is(image: Image) -> None:
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in image.said["Labels"].items()}
    assert labels["version"] == version()
    assert labels["licenses"] == "Apache-2.0"
    assert re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z", labels["created"])
    assert re.fullmatch(r"([0-9a-f]{40}(-changed)?)?", labels["revision"])
    assert labels["title"]
    assert labels["description"]
    assert image.said["User"] == f"{USER}:{USER}"


def files(image: Image) -> Iterator[tuple[str, os.stat_result]]:
    for path in image.root.rglob("*"):
        yield str(path.relative_to(image.root)), path.lstat()


def test_it_holds_no_program_but_the_bus_and_its_interpreter(image: Image) -> None:
    """No shell, no compiler, no package manager: they would lie in a folder of programs, or be files to execute."""
    folders = [image.root / each for each in ("usr/bin", "usr/sbin", "usr/local/bin", "opt/gsb/bin")]
    found = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir()}
    assert found - {"__pycache__"} == PROGRAMS
    elves = {
        name
        for name, facts in files(image)
        if stat.S_ISREG(facts.st_mode)
        and facts.st_mode & 0o111
        and not re.search(r"\.so(\.|$)", name)
        and (image.root / name).read_bytes()[:4] == b"\x7fELF"
    }
    assert elves <= {"usr/bin/python3.11"}
    installers = {each.name.split("-")[0] for each in (image.root / SITE).iterdir()}
    assert not installers & {"pip", "setuptools", "wheel", "hatchling", "pytest", "uv"}
    assert not (image.root / "usr/lib/python3.11/ensurepip").exists()


def test_no_file_gives_rights_away(image: Image) -> None:
    ours = {"var/lib/gsb"}
    for name, facts in files(image):
        if stat.S_ISLNK(facts.st_mode):
            continue
        assert not facts.st_mode & (stat.S_ISUID | stat.S_ISGID), name
        assert name == "tmp" or not facts.st_mode & stat.S_IWOTH, name
        assert (facts.st_uid, facts.st_gid) == ((USER, USER) if name in ours else (0, 0)), name


def test_no_key_and_no_store_got_into_it(image: Image) -> None:
    for name, facts in files(image):
        assert not name.endswith((".sqlite", ".jwk", ".key", ".db")), name
        if stat.S_ISREG(facts.st_mode) and name.endswith((".json", ".pem", ".toml", ".crt")):
            text = (image.root / name).read_bytes()
            assert b"PRIVATE KEY" not in text, name
            assert not (b'"kty"' in text and b'"d"' in text), name


def test_every_library_and_module_is_there(chamber: Chamber) -> None:
    assert int(chamber.python(IMPORT_ALL).splitlines()[-1]) > 300


def test_debians_packages_have_what_they_depend_on(image: Image) -> None:
    status = (image.root / "var/lib/dpkg/status.d").iterdir()
    packages = {path.name: Parser().parsestr(path.read_text("utf-8")) for path in status}
    listed = (ROOT / "helm/image/debian.txt").read_text("utf-8").splitlines()
    assert sorted(packages) == sorted(line for line in listed if line and not line.startswith("#"))
    left_out = set()
    for package in packages.values():
        for each in re.split(r",\s*", ", ".join(package[name] for name in ("Depends", "Pre-Depends") if package[name])):
            choices = [re.split(r"[\s:(]", choice.strip())[0] for choice in each.split("|")]
            if each and not packages.keys() & set(choices):
                left_out.add(choices[0])
    assert left_out == NOT_NEEDED.keys()


# --- the bill of materials


def test_the_bill_keeps_to_its_schema(image: Image) -> None:
    judge = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read()) or "valid")
"""
    path = image.root / "usr/share/sbom/gsb.cdx.json"
    assert subprocess.check_output([TOOLS, "-c", judge, path], text=True).strip() == "valid"


def test_the_bill_lists_what_is_installed(image: Image) -> None:
    told: dict[str, str] = {each["purl"].split("?")[0]: each["version"] for each in image.bill()["components"]}
    listing = [sys.executable, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
    listed: list[dict[str, Any]] = json.loads(subprocess.check_output([*listing, "--path", image.root / SITE]))
    python = {re.sub(r"[-_.]+", "-", each["name"]).lower(): each["version"] for each in listed}
    mine = {purl.split("/")[1].split("@")[0]: each for purl, each in told.items() if not purl.startswith("pkg:deb/")}
    assert mine == python
    assert f"pkg:generic/gsb@{version()}" in told
    debian = {path.name for path in (image.root / "var/lib/dpkg/status.d").iterdir()}
    assert {each["name"] for each in image.bill()["components"] if each["purl"].startswith("pkg:deb/")} == debian
    pinned = re.findall(r"(?m)^([a-z0-9-]+)==(\S+)", (ROOT / "helm/image/requirements.txt").read_text("utf-8"))
    assert dict(pinned) == {name: each for name, each in python.items() if name != "gsb"}


def test_the_bill_leads_to_the_bills_of_what_was_compiled_in(image: Image) -> None:
    urls = [url["url"] for each in image.bill()["components"] for url in each.get("externalReferences", [])]
    assert urls
    for url in urls:
        assert (image.root / url.lstrip("/")).is_file(), url


def test_the_image_is_the_one_that_was_built(image: Image) -> None:
    assert NAME.startswith("localhost/") or "IMAGE" in os.environ
    assert image.bill()["metadata"]["component"]["version"] == image.said["Labels"]["org.opencontainers.image.version"]
