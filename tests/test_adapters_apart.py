"""Adapters stay small, and the bus knows none: neither their names nor those of the real systems stand in it."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Collection, Iterator
from pathlib import Path
from statistics import median

import pytest

from config.systems.catalogue import systems

ROOT = Path(__file__).parents[1]
ADAPTERS = ROOT / "adapters" / "gsb_adapters"
MOST, MEDIAN = 400, 150
ORDINARY = {
    "apache": "the publisher of Kafka too",
    "registry": "of keys, of metrics; and what examples for integrators are about",
    "sql": "the language of both stores",
    "tax": "in the service tax/income-tax/v1, the example of the wire profile",
}
"""Names that are words for other things in the bus, and what for. That its code neither imports nor compares the name
of an adapter is held in test_order.py."""


def adapters() -> list[Path]:
    """The folder of each; folders without a manifest hold what several adapters share."""
    return sorted(path.parent for path in ADAPTERS.glob("*/adapter.toml"))


def names() -> set[str]:
    products = (system.title.partition(",")[0].lower().split() for system in systems())
    return {path.name for path in adapters()} | {system.name for system in systems()} | set().union(*products)


def stand(names: Collection[str], text: str) -> set[str]:
    """Those of the names that stand in the text as words."""
    return set(re.findall(r"[a-z0-9_]+", text.lower())) & set(names)


def test_no_name_of_an_adapter_or_a_real_system_stands_in_the_bus() -> None:
    unknown = names() - ORDINARY.keys()
    paths = [path for path in (ROOT / "gsb").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {path: found for path in paths if (found := stand(unknown, path.read_text("utf-8")))} == {}


def test_a_name_is_found_wherever_it_stands() -> None:
    assert {"tryton", "http_json", "openfisca"} <= names()
    for text in ("if system == 'tryton':", "# as Tryton does", '"title": "Tryton-Server"'):
        assert stand(names(), text) == {"tryton"}
    assert stand(names(), "attrition") == set()


def code_lines(text: str) -> int:
    """Lines of a module that hold code: without blank ones, comments and docstrings."""
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in layout:
            lines.update(range(token.start[0], token.end[0] + 1))
    for first, last in _docstrings(ast.parse(text)):
        lines.difference_update(range(first, last + 1))
    return len(lines)


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.end_lineno or node.lineno


def modules(folder: Path) -> list[str]:
    """Everything that is Python in the adapter's folder, the system of its contract too."""
    return [path.read_text("utf-8") for path in folder.rglob("*.py")]


def test_the_median_adapter_is_small() -> None:
    """In lines of code of the whole package; a limit that counted docstrings would be met by leaving them out."""
    assert median(sum(map(code_lines, modules(folder))) for folder in adapters()) < MEDIAN


@pytest.mark.parametrize("folder", adapters(), ids=lambda folder: folder.name)
def test_no_adapter_is_large(folder: Path) -> None:
    """In lines of any kind."""
    assert 0 < sum(len(text.splitlines()) for text in modules(folder)) <= MOST


def test_lines_are_those_of_code() -> None:
    text = '"""A module.\n\nOf two.\n"""\n\n# Why.\nVALUE = (\n    1,\n    2,  # two\n)\n"""Its meaning."""\n'
    assert code_lines(text) == 4
