"""The threat model held to the code: what it names exists, nothing is left out, and its lists are those of the code.

Beside it two of its claims that no module's own tests can hold: that nothing which callers send shows in logs, headers
or files, and that no reader is imported which runs or fetches what it reads.
"""

from __future__ import annotations

import ast
import re
import sqlite3
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from gsb.client import BusProblem, Client
from gsb.evidence.tiles import tile_path
from gsb.jwk import ALGORITHMS
from gsb.store.sqlite import rows as sqlite_rows
from gsb.web.app import API, OPERATIONS
from tests.support.bus import NOTE, ONCE, PERSON_BODY, READ
from tests.support.deployment import standard
from tests.support.node import GSB, running_node
from tests.support.reading import published, size_of

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "THREAT_MODEL.md").read_text("utf-8")
PARTS = dict(re.findall(r"(?ms)^## ([0-9]+ ?\. .+?)\n(.*?)(?=^## |\Z)", PAGE))
STRIDE = "STRIDE"
THREATS = ["threat", "mitigation", "test", "what remains"]
NAMED = re.compile(r"`([\w./-]+\.py)::?(\w+(?:\.\w+)*)`")
SOURCES = ("gsb", "adapters/gsb_adapters")


def tables(text: str) -> Iterator[list[list[str]]]:
    """The cells of each table, its head first."""
    for block in re.findall(r"(?m)(?:^\|.*\|\n)+", text):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        yield [rows[0], *rows[2:]]


def table(head: list[str]) -> list[list[str]]:
    """The rows of the one table of the page with this head."""
    (found,) = (rows[1:] for rows in tables(PAGE) if rows[0] == head)
    return found


def threats() -> list[tuple[str, list[str]]]:
    return [
        (part, row) for part, text in PARTS.items() for rows in tables(text) if rows[0] == THREATS for row in rows[1:]
    ]


@cache
def defined(path: str) -> frozenset[str]:
    """Every class and function of a file, by qualified name; those inside functions are nobody's business."""
    return frozenset(_names(ast.parse((ROOT / path).read_text("utf-8")), ""))


def _names(tree: ast.AST, prefix: str) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from _names(node, f"{prefix}{node.name}.")


def modules() -> Iterator[str]:
    """What a part must claim: each file and package right below ``gsb``, and each adapter."""
    for child in sorted((ROOT / "gsb").iterdir()):
        if (child.suffix == ".py" and child.stem != "__init__") or (child / "__init__.py").is_file():
            yield f"gsb/{child.name}"
    yield from (f"adapters/gsb_adapters/{each.parent.name}" for each in (ROOT / SOURCES[1]).glob("*/__init__.py"))


def claimed(text: str) -> list[str]:
    """What the paragraph ``Code:`` of a part names."""
    paragraph = re.search(r"(?ms)^Code: (.*?)\. ?(?:Assets|\n)", text)
    assert paragraph is not None
    return re.findall(r"`([^`]+)`", paragraph[1])


# --- the page and the code


def test_what_the_page_names_exists() -> None:
    named = NAMED.findall(PAGE)
    assert len(named) > 200
    missing = [
        f"{path}:{name}"
        for path, name in named
        if not (ROOT / path).is_file()
        or not any(each == name or (path.startswith("tests/") and each.endswith(f".{name}")) for each in defined(path))
    ]
    assert missing == []


def test_whatever_looks_like_code_is_read_as_such() -> None:
    """A name in another form would be passed over by the test above."""
    odd = [each for each in re.findall(r"`([^`\n]*\.py:[^`\n]*)`", PAGE) if not NAMED.fullmatch(f"`{each}`")]
    assert odd == []


def test_every_threat_has_a_mitigation_and_a_test_or_says_why_not() -> None:
    for part, (threat, mitigation, test, _) in threats():
        assert re.match(r"\*\*[STRIDE]\*\* \S", threat), (part, threat)
        assert mitigation, (part, threat)
        assert "::test_" in test or re.match(r"none: \S", test), (part, threat)


def test_every_part_is_looked_at_from_every_side() -> None:
    assert len(PARTS) >= 15
    for part, text in PARTS.items():
        seen = {row[0][2] for of, row in threats() if of == part}
        excused = re.search(r"Not applicable: ([STRIDE, ]+)[.:]", text)
        assert seen | set(excused[1] if excused else "") - set(", ") == set(STRIDE), part


def test_every_module_belongs_to_a_part() -> None:
    paths = [path for text in PARTS.values() for path in claimed(text)]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert len(paths) == len(set(paths))
    inside = {path for path in paths if any(path.startswith(f"{other}/") for other in paths)}
    assert sorted(path for path in set(paths) - inside if path.startswith(SOURCES)) == sorted(modules())


def test_the_contents_lead_to_every_section() -> None:
    headings = re.findall(r"(?m)^## (.+)$", PAGE)
    anchors = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) == anchors


# --- events that oblige a revision


def test_endpoints_are_those_of_the_page() -> None:
    ports = {"API": API, "operations": OPERATIONS}
    expected = [(f"`{route.name}`", port) for port, routes in ports.items() for route in routes]
    rows = table(["endpoint", "port", "unsigned callers get"])
    assert sorted((endpoint, port) for endpoint, port, _ in rows) == sorted(expected)


async def test_unsigned_callers_get_401_where_the_page_says_so(tmp_path: Path) -> None:
    identifier = "01a0c450-6c00-71b6-b1a8-e21f6124ae04"
    async with running_node(tmp_path) as node, aiohttp.ClientSession() as session:
        note = await published(node)
        name = note.split(b"\n")[0].decode().rpartition("/")[2]
        tile = tile_path(0, 0, size_of(note))
        for endpoint, port, said in table(["endpoint", "port", "unsigned callers get"]):
            method, path = endpoint.strip("`").split(" ")
            path = path.replace("{id}", identifier).replace("{code}", "busy").replace("{service}", READ)
            path = path.replace("{log}", name).replace("{tile}", tile)
            url = (node.url if port == "API" else node.operations_url) + path
            body, headers = (b"{}", {"Content-Type": "application/json"}) if method == "POST" else (None, {})
            async with session.request(method, url, data=body, headers=headers) as answer:
                assert (answer.status == 401) == (said == "401"), endpoint
                assert answer.status in (200, 401), endpoint


def test_algorithms_are_those_of_the_page() -> None:
    (line,) = re.findall(r"(?s)Algorithms: (.*?)\.\n", PARTS["2. Signatures and replay"])
    assert re.findall(r"`([^`]+)`", line) == list(ALGORITHMS)


def number(step: str) -> int:
    return int(step.partition(" ")[0])


@pytest.mark.parametrize("module", ["admit", "perform"])
def test_the_steps_are_those_of_the_page(module: str) -> None:
    (told,) = re.findall(rf"(?ms)^- {module}: (.*?)\n(?=- |\n)", PAGE)
    source = (ROOT / f"gsb/{module}.py").read_text("utf-8")
    by_function = [re.findall(r"(?m)#  ?([0-9]+ .+)$", part) for part in re.split(r"(?m)^(?:async )?def ", source)]
    assert all(steps == sorted(steps, key=number) for steps in by_function)
    steps = [step for steps in by_function for step in steps if not re.fullmatch(r"[0-9]+ to [0-9]+", step)]
    assert [step.strip() for step in " ".join(told.split()).split("·")] == sorted(steps, key=number)


def test_stored_columns_are_those_of_the_page() -> None:
    database = sqlite3.connect(":memory:")
    database.executescript(sqlite_rows.SCHEMA)
    names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    columns = [(name, row[1]) for name in names for row in database.execute(f"PRAGMA table_info({name})")]
    database.close()
    rows = table(["table", "column", "form"])
    assert [(name, column) for name, column, _ in rows] == columns
    forms = ("clear", "sealed", "number", "keyed hash", "masked", "hash of the content")
    assert [form for _, _, form in rows if not form.startswith(forms)] == []


def test_dependencies_are_those_of_the_page() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = [re.match(r"[A-Za-z0-9-]+", each)[0] for each in project["dependencies"]]  # type: ignore[index]
    rows = table(["dependency", "what it sees", "why it is trusted with that"])
    assert [row[0] for row in rows] == sorted(names)


# --- claims of the whole

READERS = {
    *("pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml", "xml", "lxml", "jinja2", "mako"),
    *("subprocess", "ctypes", "cffi", "code", "codeop", "runpy", "telnetlib", "xmlrpc"),
}
RUNNERS = {"eval", "exec", "compile", "__import__"}
STARTS_SERVERS = ROOT / "gsb/bench/servers"
"""Where benchmarks start PostgreSQL and Kafka, from words of their own; it reads nothing, and no node imports it."""
READS_XML = {ROOT / "adapters/gsb_adapters" / name for name in ("xml/__init__.py", "soap/wsdl.py")}
"""Where XML is read: they refuse every document type, and so whatever a reader could expand or fetch."""


def runs_or_fetches(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RUNNERS:
            yield node.func.id
        yield from (name for name in names if name.partition(".")[0] in READERS)


def test_no_reader_that_runs_or_fetches_what_it_reads() -> None:
    files = [path for folder in SOURCES for path in (ROOT / folder).rglob("*.py")]
    files = [path for path in files if path.parent != STARTS_SERVERS and path not in READS_XML]
    found = {str(path): list(runs_or_fetches(ast.parse(path.read_text("utf-8")))) for path in files}
    assert {path: names for path, names in found.items() if names} == {}
    assert list(runs_or_fetches(ast.parse("import xml.etree\nfrom pickle import loads\neval('1')"))) != []


def test_no_private_key_is_committed() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]  # whoever owns the clone
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = [name for name in listed.split("\0") if name]
    assert "gsb/jwk.py" in names
    assert [name for name in names if re.search(r"\.(jwk|key|pem|p12)$|(?<!pub)\.jwk\.json$", name)] == []


CANARY = "CANARY-7f3a"
LATIN = CANARY.encode()


@pytest.mark.parametrize("verbose", [[], ["--verbose"]])
async def test_what_callers_send_stays_out_of_logs_headers_and_files(tmp_path: Path, verbose: list[str]) -> None:
    deployment = standard(tmp_path)
    command = [GSB, "serve", deployment.folder, *verbose]
    headers: list[Any] = []
    async with running_node(tmp_path, deployment, command=command) as node:
        async with aiohttp.ClientSession() as session:
            for method, url, said in unsigned():
                async with session.request(method, node.url + url, headers=said, data=b"{}") as answer:
                    headers += answer.headers.items()
                    assert CANARY not in await answer.text()
        async with node.client() as client, node.operator() as operator:
            for call in signed(client):
                headers += (await said_to(call)).items()
            for query in (f"reason={CANARY}", f"reason={CANARY}&state={CANARY}", f"reason={CANARY}&{CANARY}=1"):
                headers += (await said_to(operator.admin("GET", f"/admin/exchanges?{query}"))).items()
        await node.stop()
    assert len(headers) > 20
    assert [each for each in headers if CANARY in "".join(each) and each[0] != "GSB-Signature"] == []
    assert {value for name, value in headers if name == "Server"} == {"gsb"}
    assert [line for line in node.log if CANARY in line] == []
    assert any("exchange ended" in line for line in node.log)
    stored = list(deployment.folder.glob("store.db*"))
    assert stored != []
    assert [path for path in stored if LATIN in path.read_bytes()] == []


def unsigned() -> Iterator[tuple[str, str, dict[str, str]]]:
    """Calls of nobody with the canary wherever a call has a place for it."""
    yield "GET", f"/{CANARY}", {}
    yield "GET", f"/services?{CANARY}", {}
    yield "POST", f"/services/{CANARY}", {"Content-Type": "application/json"}
    for name in (
        "GSB-Signature",
        "Idempotency-Key",
        "Content-Encoding",
        "Content-Type",
        "Prefer",
        "traceparent",
        "Via",
    ):
        yield "POST", f"/services/{READ}", {"Content-Type": "application/json", name: f"{CANARY} {CANARY}"}


def signed(client: Client) -> Iterator[Any]:
    """Calls of an agency with the canary in body, claims and keys, refused ones among them."""
    personal: dict[str, Any] = {"sub": CANARY, "case": CANARY}
    yield client.call(ONCE, NOTE | {"text": CANARY}, purpose="payroll", idempotency_key=CANARY, **personal)
    yield client.call(ONCE, NOTE | {"text": "other"}, purpose="payroll", idempotency_key=CANARY, **personal)
    yield client.call(READ, {"id": CANARY}, purpose="payroll", **personal)
    yield client.call(READ, PERSON_BODY | {CANARY: CANARY}, purpose="payroll", **personal)
    yield client.call(READ, f'{{"id": "{CANARY}", "id": 1}}'.encode(), purpose="payroll", **personal)
    yield client.call(READ, PERSON_BODY, purpose="curiosity", **personal)
    yield client.call(f"{READ}{CANARY}", PERSON_BODY, purpose="payroll", **personal)


async def said_to(call: Any) -> dict[str, str]:
    try:
        result = await call
    except BusProblem as problem:
        result = problem.result
    assert CANARY not in orjson.dumps(result.body).decode() or result.status in (200, 422, 400)
    return dict(result.headers)
