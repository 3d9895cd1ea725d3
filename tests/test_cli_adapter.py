"""``gsb adapter`` as an integrator gives it, in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.node import GSB

ROOT = Path(__file__).parents[1]
RUFF = Path(sys.executable).parent / "ruff"


def gsb(*words: str | Path, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """``gsb adapter``, which must exit with this code."""
    ended = run(GSB, "adapter", *words, cwd=cwd)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended


def run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [str(word) for word in words]
    return subprocess.run(command, check=False, cwd=cwd, env=kept, capture_output=True, text=True, timeout=300)


# --- new


def test_a_new_adapter_is_green_at_once(tmp_path: Path) -> None:
    said = gsb("new", "fish_licences", cwd=tmp_path).stdout
    assert "fish_licences: an adapter that works" in said
    tests = run(sys.executable, "-m", "pytest", "-q", "fish_licences", cwd=tmp_path)
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert "17 passed" in tests.stdout
    assert "warning" not in tests.stdout
    graded = gsb("grade", "fish_licences", cwd=tmp_path).stdout
    assert graded.startswith("fish_licences: 17 kept\n")


def test_a_new_adapter_is_written_as_the_buss_own_are(tmp_path: Path) -> None:
    gsb("new", "fish_licences", cwd=tmp_path)
    folder = tmp_path / "fish_licences"
    for command in (["check", "--config", ROOT / "pyproject.toml"], ["format", "--check", "--line-length", "120"]):
        checked = run(RUFF, *command, "--no-cache", folder, cwd=tmp_path)
        assert checked.returncode == 0, checked.stdout
    typed = run(sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.devnull, "fish_licences", cwd=folder)
    assert typed.returncode == 0, typed.stdout
    texts = [path.read_text("utf-8") for path in folder.rglob("*") if path.is_file()]
    assert len(texts) > 15
    assert [text for text in texts if "land" in text.lower().replace("wonderland", "")] == []


@pytest.mark.parametrize("name", ["Fish", "fish-licences", "x", "", "json", "gsb_more", "fish__x", "../fish", "é"])
def test_a_name_that_cannot_be_one_is_told(tmp_path: Path, name: str) -> None:
    said = gsb("new", name, cwd=tmp_path, code=2).stderr
    assert said.startswith("gsb: ")
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_is_there_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "fish").mkdir()
    assert "is there already" in gsb("new", "fish", cwd=tmp_path, code=2).stderr
    assert list((tmp_path / "fish").iterdir()) == []
    assert "cannot write" in gsb("new", "fish", "--into", tmp_path / "none", cwd=tmp_path, code=2).stderr


# --- grade


def test_grades_of_every_adapter_are_printed_with_their_exemptions(tmp_path: Path) -> None:
    verdicts = json.loads(gsb("grade", "--all", "--json", cwd=tmp_path).stdout)
    assert {"http_json", "sql", "tax"} <= verdicts.keys()
    assert {len(each) for each in verdicts.values()} == {17}
    told = {each["rule"]: each for each in verdicts["sql"]}
    assert told["sent"]["result"] == "exempt"
    assert "undone" in told["sent"]["reasons"][0]


def test_a_broken_rule_is_printed_with_what_breaks_it(tmp_path: Path) -> None:
    gsb("new", "fish", cwd=tmp_path)
    code = tmp_path / "fish/fish/__init__.py"
    code.write_text(code.read_text("utf-8").replace(", after=answer.after()", ""), "utf-8")
    said = gsb("grade", "fish", cwd=tmp_path, code=1).stdout
    assert said.startswith("fish: 16 kept, 1 broken\n")
    assert (
        "  fail    throttled    429 with Retry-After is a pause of that length\n          fish/parcel/v1: 429" in said
    )


@pytest.mark.parametrize("words", [(), ("tax", "--all"), ("nothing_installed",), ("tests",)], ids=str)
def test_what_cannot_be_graded_is_told_in_a_line(tmp_path: Path, words: tuple[str, ...]) -> None:
    said = gsb("grade", *words, cwd=tmp_path, code=2).stderr
    assert said.startswith("gsb: ")
    assert len(said.splitlines()) == 1
