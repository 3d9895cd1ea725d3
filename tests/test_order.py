"""The shape of the code, held on the syntax tree: one order of modules, so that cycles cannot exist; adapters apart;
small files, functions and packages; and nothing caught blindly but in named places.

Each rule is a function of a path and a tree that yields what breaks it, and is itself shown to bite.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

ROWS = """
    errors.problem errors.calls errors.exchanges errors model telemetry tracing trouble counts metrics
    strictjson schema problem
    jwk compact jws send client
    sdk.errors sdk.clock sdk.threads sdk.http sdk.adapter sdk.mapping sdk.money sdk.manifest sdk
    forms dsn sources backends config load installed
    hsm hsmkeys published keys policy limits projection fair deadlines
    evidence.tiles evidence.merkle evidence.entry evidence.checkpoint evidence.proof evidence.witness evidence.log
        evidence.verify evidence.gsb_verify
    store.logs store.contract store.seal store.spent store.reserved store.standing store.asks store.sealing
        store.sqlite.rows store.sqlite.reads store.sqlite.batch store.sqlite.writer
        store.sqlite.opened store.sqlite.log store.sqlite.erase store.sqlite.proving store.sqlite.store store.sqlite
        store.postgres.layout.tables store.postgres.layout.migrations store.postgres.layout.portions
        store.postgres.schema store.postgres.sessions store.postgres.aging store.postgres.batch store.postgres.writer
        store.postgres.reads store.postgres.log store.postgres.proving store.postgres.store store.postgres
        store.carry
    shares.contract shares.division shares.local shares.postgres shares.budgets
    broker.contract broker.local broker.topics
        broker.kafka.clients broker.kafka.events broker.kafka.outbox broker.kafka.positions broker.kafka.turns
        broker.kafka.intake broker.kafka.wakes broker.kafka.broker broker.kafka.admin broker.kafka
    stamp fetch
    material lint_backends lint catalogue check
    breaker watchdog calls plans shares.places runtime roles otel foundation
    revocations ends bus skew signing lag duty
    testing.cassette testing.peer testing.subject testing.still testing.faults testing.conduct testing.contract
        testing.offline testing.scrub testing
    handout verdict
    admit perform workers sweep reload resume restore ask cosign record jwks
    web.server web.callers web.services web.reference.shapes web.reference.openapi web.reference.docs
        web.exchanges web.log web.receipts web.admin web.erasure web.app
    witness.settings witness.book witness.server witness.serving
    bench.servers.installed bench.servers.postgres bench.servers.kafka
    node bench.store bench.place bench.instant bench.load bench.floor bench.served bench.steps bench.sync
        bench.crowd.late bench.crowd.place bench.crowd.flood bench.crowd.fairness bench.crowd.strain bench.memory
        bench.search.fill bench.search.measure
        bench.cluster.ground bench.cluster.raw bench.cluster.flow bench.cluster.latency bench.cluster.measure
        bench.evidence.made bench.evidence.pace bench.evidence.verifying bench.evidence.receipts bench.evidence.measure
    doctor.found doctor.machine doctor.keys doctor.network doctor.standing doctor.node doctor.systems
        doctor.examine doctor.bundle doctor
    backup backup.envelope backup.sealed backup.archive backup.files backup.logs backup.sqlite backup.postgres
        backup.make backup.lay
    cli.shared cli.bench cli.call cli.check cli.exchanges cli.keygen cli.serve cli.top
        cli.evidence.log cli.evidence.sources cli.evidence.verify cli.evidence.receipt cli.evidence.erase
        cli.evidence.witness cli.operate.progress cli.cluster.migrate cli.cluster.prepare cli.cluster.lay
        cli.cluster.restore cli.cluster.topics cli.operate.backup
        cli.operate.doctor cli.operate.hsm cli.operate.key
        cli.adapter.new cli.adapter.grade cli.adapter.run cli.adapter.group cli.main bench.cluster.steps
    manual.markdown manual.lines manual.profile manual.deployment manual.commands manual.adapters manual.pages
        manual.__main__
"""
"""A module imports only from rows above its own, or from its left in its own row."""
ORDER = {name: place for place, name in enumerate(ROWS.split())}

MOST_LINES, MOST_LINES_OF_FUNCTION, MOST_FILES = 400, 40, 10
BLIND = {
    "gsb/broker/kafka/clients.py": "running a foreign client for ever",
    "gsb/doctor/examine.py": "an examination that fails, which must not hide what the others find",
    "gsb/doctor/systems.py": "running foreign code, whose every error is a finding",
    "gsb/hsm.py": "the thread in which an HSM is asked, which hands every error to whoever waits",
    "gsb/installed.py": "importing foreign code",
    "gsb/runtime.py": "running foreign code",
    "gsb/testing/contract.py": "running foreign code, whose every error is a broken rule",
    "gsb/sdk/threads.py": "running foreign code in a thread, which hands every error to whoever waits",
    "gsb/store/postgres/writer.py": "the task that writes, which hands every error to those who wait",
    "gsb/store/sqlite/writer.py": "the writer thread, which hands every error to those who wait",
    "gsb/workers.py": "the worker loop, which survives one exchange",
    "gsb/reload.py": "building another catalogue, which runs foreign code beside a node that works",
    "gsb/web/app.py": "the edge, which answers every error as a problem",
}
"""Where everything may be caught, and what for."""

Rule = Callable[[str, ast.Module], Iterator[str]]


def module_of(path: str) -> str:
    """``gsb/sdk/http.py`` -> ``sdk.http``; a package's own file has the package's name, the whole is ``gsb``."""
    parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
    return ".".join(parts[1:]) or "gsb"


def exists(module: str) -> bool:
    path = ROOT / module.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imports(tree: ast.Module) -> Iterator[str]:
    """Full names of every module that is imported anywhere in a file; relative ones begin with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if base.startswith("gsb") and exists(inner) else base


def under(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


# --- the rules


def follows_the_order(path: str, tree: ast.Module) -> Iterator[str]:
    here = module_of(path)
    inside = [name for name in imports(tree) if under(name, "gsb") or name.startswith(".")]
    if here not in ORDER:
        # The file of a package may be empty but for its docstring; whatever holds code has its place in a row.
        if inside or (len(tree.body) > 1 and here != "gsb"):
            yield f"{path} has no place in the order of modules"
        return
    for name in inside:
        there = name.removeprefix("gsb").removeprefix(".")
        if name == "gsb":
            continue
        if name.startswith("."):
            yield f"{path} imports relatively"
        elif there not in ORDER:
            yield f"{path} imports {name}, which has no place in the order of modules"
        elif ORDER[there] >= ORDER[here]:
            yield f"{path} imports {name}, which does not come before it"


def names_no_adapter(path: str, tree: ast.Module) -> Iterator[str]:
    names = adapters()
    for name in imports(tree):
        if under(name, "gsb_adapters"):
            yield f"{path} imports the adapter {name}"
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        if text in names or "gsb_adapters" in text:
            yield f"{path} names an adapter: {text}"


def imports_only_the_sdk(path: str, tree: ast.Module) -> Iterator[str]:
    own = ".".join(path.split("/")[1:3])
    for name in imports(tree):
        if name.startswith("."):
            yield f"{path} imports relatively"
        elif under(name, "gsb") and not under(name, "gsb.sdk"):
            yield f"{path} imports {name}; an adapter knows only gsb.sdk"
        elif under(name, "gsb_adapters") and not {*name.split(".")[1:2]} & ({own.partition(".")[2]} | shared()):
            yield f"{path} imports {name}, another adapter"


def has_small_functions(path: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MOST_LINES_OF_FUNCTION:
                yield f"{path}:{node.lineno} {node.name} has {lines} lines"


def catches_what_it_names(path: str, tree: ast.Module) -> Iterator[str]:
    if path in BLIND:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            names = {each.id for each in ast.walk(node.type) if isinstance(each, ast.Name)} if node.type else {""}
            if names & {"", "Exception", "BaseException"}:
                yield f"{path}:{node.lineno} catches everything"


def says_what_it_is_for(path: str, tree: ast.Module) -> Iterator[str]:
    if not ast.get_docstring(tree):
        yield f"{path} opens without a docstring"


# --- the code


def files(*folders: str) -> list[str]:
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def adapters() -> set[str]:
    return {path.parent.name for path in (ROOT / "adapters/gsb_adapters").glob("*/adapter.toml")}


def shared() -> set[str]:
    """Packages without a manifest: no adapters, but what several of them use."""
    return {path.parent.name for path in (ROOT / "adapters/gsb_adapters").glob("*/__init__.py")} - adapters()


def broken(rule: Rule, *folders: str) -> list[str]:
    return [each for path in files(*folders) for each in rule(path, ast.parse((ROOT / path).read_text("utf-8")))]


@pytest.mark.parametrize(
    ("rule", "folders"),
    [
        (follows_the_order, ["gsb"]),
        (names_no_adapter, ["gsb"]),
        (imports_only_the_sdk, ["adapters/gsb_adapters"]),
        (has_small_functions, ["gsb", "adapters", "config", "tests"]),
        (catches_what_it_names, ["gsb", "adapters"]),
        (says_what_it_is_for, ["gsb", "adapters", "config", "tests"]),
    ],
)
def test_the_code_keeps_the_rule(rule: Rule, folders: list[str]) -> None:
    assert broken(rule, *folders) == []


def test_every_row_names_modules_that_exist() -> None:
    assert [name for name in ORDER if not exists(f"gsb.{name}")] == []
    assert len(ORDER) == len(ROWS.split())


def test_files_are_short() -> None:
    long = [path for path in files("gsb", "adapters", "config", "tests") if lines(path) > MOST_LINES]
    assert long == []


def lines(path: str) -> int:
    return len((ROOT / path).read_text("utf-8").splitlines())


def test_packages_are_small() -> None:
    packages = Counter(Path(path).parent.as_posix() for path in files("gsb", "adapters/gsb_adapters"))
    # The rows above are what keeps the top level in order, and there are more of them than ten.
    del packages["gsb"]
    assert {package: count for package, count in packages.items() if count > MOST_FILES} == {}


def test_everything_is_caught_only_where_it_is_said_to_be() -> None:
    assert [path for path in BLIND if "except Exception" not in (ROOT / path).read_text("utf-8")] == []


def test_there_are_adapters_to_keep_apart() -> None:
    assert len(adapters()) >= 3


# --- each rule bites


@pytest.mark.parametrize(
    ("rule", "path", "code"),
    [
        (follows_the_order, "gsb/errors/calls.py", "from gsb.model import State"),
        (follows_the_order, "gsb/policy.py", "import gsb.store.contract"),
        (follows_the_order, "gsb/policy.py", "from gsb import limits"),
        (follows_the_order, "gsb/sdk/adapter.py", "from gsb.keys import Registry"),
        (follows_the_order, "gsb/policy.py", "def late():\n    from gsb.node import Node"),
        (follows_the_order, "gsb/policy.py", "from gsb.policy import cut"),
        (follows_the_order, "gsb/policy.py", "from . import errors"),
        (follows_the_order, "gsb/policy.py", "from .errors import Problem"),
        (follows_the_order, "gsb/policy.py", "from gsb.elsewhere import thing"),
        (follows_the_order, "gsb/newcomer.py", "'''Something.'''\nVALUE = 1"),
        (follows_the_order, "gsb/store/__init__.py", "'''Stores.'''\nfrom gsb.store.contract import Store"),
        (names_no_adapter, "gsb/runtime.py", "import gsb_adapters.sql"),
        (names_no_adapter, "gsb/runtime.py", "from gsb_adapters import tax"),
        (names_no_adapter, "gsb/runtime.py", "importlib.import_module('gsb_adapters.' + name)"),
        (names_no_adapter, "gsb/runtime.py", "if adapter == 'http_json': pass"),
        (imports_only_the_sdk, "adapters/gsb_adapters/sql/__init__.py", "from gsb.keys import Registry"),
        (imports_only_the_sdk, "adapters/gsb_adapters/sql/__init__.py", "import gsb"),
        (imports_only_the_sdk, "adapters/gsb_adapters/sql/__init__.py", "from gsb import model"),
        (imports_only_the_sdk, "adapters/gsb_adapters/sql/__init__.py", "from gsb_adapters.tax import Tax"),
        (imports_only_the_sdk, "adapters/gsb_adapters/sql/__init__.py", "from .settings import Settings"),
        (has_small_functions, "gsb/x.py", "def long():\n" + "    pass\n" * 40),
        (has_small_functions, "gsb/x.py", "class A:\n    async def long(self):\n" + "        pass\n" * 40),
        (catches_what_it_names, "gsb/policy.py", "try:\n    pass\nexcept Exception:\n    pass"),
        (catches_what_it_names, "gsb/policy.py", "try:\n    pass\nexcept:\n    pass"),
        (catches_what_it_names, "gsb/policy.py", "try:\n    pass\nexcept (OSError, BaseException) as e:\n    pass"),
        (says_what_it_is_for, "gsb/policy.py", "VALUE = 1"),
    ],
)
def test_each_rule_bites(rule: Rule, path: str, code: str) -> None:
    assert list(rule(path, ast.parse(code))) != []


@pytest.mark.parametrize(
    ("rule", "path", "code"),
    [
        (follows_the_order, "gsb/policy.py", "from gsb import errors\nfrom gsb.keys import Registry\nimport pydantic"),
        (follows_the_order, "gsb/cli/main.py", "from gsb import __version__"),
        (follows_the_order, "gsb/store/__init__.py", "'''Stores.'''"),
        (names_no_adapter, "gsb/model.py", "'''A service such as tax/income-tax/v1.'''"),
        (
            imports_only_the_sdk,
            "adapters/gsb_adapters/sql/__init__.py",
            """import sqlalchemy
from gsb.sdk.errors import Broken
from gsb_adapters.sql.settings import Statement
from gsb_adapters.batch import connected""",
        ),
        (has_small_functions, "gsb/x.py", "def long():\n" + "    pass\n" * 39),
        (catches_what_it_names, "gsb/policy.py", "try:\n    pass\nexcept (OSError, ValueError):\n    pass"),
        (catches_what_it_names, "gsb/workers.py", "try:\n    pass\nexcept Exception:\n    pass"),
    ],
)
def test_each_rule_lets_right_code_pass(rule: Rule, path: str, code: str) -> None:
    assert list(rule(path, ast.parse(code))) == []
