"""``gsb adapter`` as an integrator gives it, in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gsb.cli.adapter.new import files
from tests.support.deployment import free_ports
from tests.support.node import GSB
from tests.support.real import real

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


def made(folder: Path) -> None:
    """What ``gsb adapter new fish`` makes."""
    for path, text in files("fish"):
        (folder / "fish" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "fish" / path).write_text(text, "utf-8")


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


@pytest.mark.parametrize(
    "name",
    ["Fish", "fish-licences", "x", "", "json", "gsb_more", "fish__x", "../fish", "é", "tax", "class", "pydantic"],
)
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


def test_each_adapter_is_told_as_soon_as_it_is_graded_and_nothing_else_is(tmp_path: Path) -> None:
    command = [str(GSB), "adapter", "grade", "--all"]
    with (tmp_path / "stderr").open("wb") as told:
        running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=told, text=True)
    try:
        assert running.stdout is not None
        assert running.stdout.readline().startswith("customs: ")
        assert running.poll() is None
    finally:
        running.kill()
        running.communicate()
    assert (tmp_path / "stderr").read_text() == ""


def test_a_broken_rule_is_printed_with_what_breaks_it(tmp_path: Path) -> None:
    made(tmp_path)
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


# --- try


def test_a_request_is_tried_without_a_bus(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "request.json").write_text('{"parcel": "L-000042"}')
    told = gsb("try", "fish", "fish/parcel/v1", "@request.json", cwd=tmp_path).stdout
    assert json.loads(told) == {"parcel": "L-000042", "owner": "P-1001"}
    refused = gsb("try", "fish", "fish/parcel/v1", '{"parcel": "L-999999"}', cwd=tmp_path, code=4).stderr
    assert refused == "gsb: refused with the code not_found\n"


def test_a_system_is_found_where_the_configuration_says(tmp_path: Path) -> None:
    made(tmp_path)
    system = tmp_path / "fish/config/systems/fish.toml"
    (port,) = free_ports(1)
    system.write_text(system.read_text("utf-8").replace("https://registry.example", f"http://127.0.0.1:{port}"))
    words = ("try", "fish", "fish/parcel/v1", '{"parcel": "L-000042"}', "--config", "fish/config")
    said = gsb(*words, cwd=tmp_path, code=6).stderr
    assert said.startswith("gsb: unavailable (sent=False): ")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("try", "fish", "fish/parcel/v1", "{"), "does not fit its schema"),
        (("try", "fish", "fish/parcel/v1", '{"parcel": "L-1", "parcel": "L-2"}'), "does not fit its schema"),
        (("try", "fish", "fish/parcel/v1", '{"parcel": "L-1"}'), "/parcel"),
        (("try", "fish", "fish/parcel/v1", "@none.json"), "cannot read none.json"),
        (("try", "fish", "fish/parcel/v2", "{}"), "names no service fish/parcel/v2"),
        (("try", "nobody", "fish/parcel/v1", "{}"), "no adapter 'nobody' is installed"),
        (("try", "fish", "fish/parcel/v1", '{"parcel": "L-000042"}', "--config", "none"), "cannot read none/systems"),
        (("replay", "fish", "none.json"), "there is no cassette none.json"),
        (("replay", "fish", "fish/pyproject.toml"), "pyproject.toml"),
        (("replay", "fish", "fish/schemas/fish/parcel/v1/reply.json"), "reply.json"),
    ],
)
def test_wrong_use_is_told_in_a_line(tmp_path: Path, words: tuple[str, ...], text: str) -> None:
    made(tmp_path)
    said = gsb(*words, cwd=tmp_path, code=2).stderr
    assert said.startswith("gsb: ")
    assert text in said
    assert len(said.splitlines()) == 1


# --- record and replay


@pytest.mark.slow
async def test_a_call_of_a_real_system_is_recorded_and_replayed(tmp_path: Path) -> None:
    body = {"tin": "TIN-0000042", "period": "2026-09", "gross": {"amount": "214500.50", "currency": "XOF"}}
    config = tmp_path / "config"
    (config / "systems").mkdir(parents=True)
    async with real("openfisca", tmp_path) as engine:
        system = f'title = "Tax"\nagency = "tax"\nadapter = "tax"\n[settings]\nurl = "{engine.url}"\ncurrency = "XOF"\n'
        (config / "systems/tax.toml").write_text(system)
        words = ("record", "tax", "tax/income-tax/v1", json.dumps(body), "--config", config, "--to", "taxed.json")
        said = gsb(*words, "--note", "OpenFisca", cwd=tmp_path).stdout
        assert said.startswith("taxed.json: 1 calls, without secrets and people")
        assert "is there already" in gsb(*words, cwd=tmp_path, code=2).stderr
    kept = json.loads((tmp_path / "taxed.json").read_bytes())
    assert kept["note"] == "OpenFisca"
    assert kept["request"].keys() == body.keys()
    assert kept["request"]["tin"] != body["tin"]
    assert kept["reply"]["rules"].startswith("openfisca-country_template ")
    assert b"214500" not in (tmp_path / "taxed.json").read_bytes()
    assert gsb("replay", "tax", "taxed.json", cwd=tmp_path).stdout == "taxed: as it was\n"
    kept["reply"]["net"]["amount"] = "1.00"
    (tmp_path / "taxed.json").write_text(json.dumps(kept))
    said = gsb("replay", "tax", "taxed.json", cwd=tmp_path, code=1).stdout
    assert said == "taxed: otherwise\n  it ends otherwise than the cassette\n"


def test_what_has_no_outcome_is_not_recorded(tmp_path: Path) -> None:
    made(tmp_path)
    system = tmp_path / "fish/config/systems/fish.toml"
    (port,) = free_ports(1)
    system.write_text(system.read_text("utf-8").replace("https://registry.example", f"http://127.0.0.1:{port}"))
    words = ("record", "fish", "fish/parcel/v1", '{"parcel": "L-000042"}', "--config", "fish/config", "--to", "x.json")
    assert "unavailable" in gsb(*words, cwd=tmp_path, code=6).stderr
    assert not (tmp_path / "x.json").exists()


def test_nothing_is_called_whose_recording_could_not_be_written(tmp_path: Path) -> None:
    made(tmp_path)
    words = ("fish", "fish/parcel/v1", '{"parcel": "L-000042"}', "--config", "fish/config", "--to")
    for place in ("nowhere/o.json", "fish/pyproject.toml/o.json"):
        said = gsb("record", *words, place, cwd=tmp_path, code=2).stderr
        assert said == f"gsb: cannot write {place}: there is no such folder\n"


def test_every_cassette_of_a_new_adapter_replays(tmp_path: Path) -> None:
    made(tmp_path)
    said = gsb("replay", "fish", cwd=tmp_path).stdout
    assert said.splitlines() == [
        f"{name}: as it was" for name in ("parcel-unknown", "parcel", "transfer-refused", "transfer")
    ]
