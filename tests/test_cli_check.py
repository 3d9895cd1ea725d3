"""The commands ``gsb check`` and ``gsb keygen``: what they print, what they leave behind, how they exit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from gsb import jwk
from gsb.cli.check import check as check_command
from gsb.cli.keygen import keygen as keygen_command
from gsb.cli.keygen import public_name
from gsb.store.seal import read_key
from tests.support.deployment import standard

REPLY = "registry/person/v1/reply.json"

app = typer.Typer()
app.command()(check_command)
app.command()(keygen_command)


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_check_prints_a_summary_and_exits_0(tmp_path: Path) -> None:
    code, out, err = run("check", standard(tmp_path).write())
    assert (code, err) == (0, "")
    assert "nothing wrong; agencies 4, operators 5, systems 1, services 3, agreements 1; digest " in out


def test_check_prints_every_finding_and_exits_1(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    deployment.files["systems/registry.toml"]["agency"] = "nobody"
    deployment.schemas[REPLY]["examples"] = []
    code, out, _ = run("check", deployment.write())
    assert code == 1
    lines = out.splitlines()
    assert f"schemas/{REPLY}: examples: has no example; callers learn from them, and tests check them" in lines
    assert "systems/registry.toml: agency: there is no agency 'nobody'" in lines


def test_check_tells_machines_the_same(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    code, out, _ = run("check", deployment.write(), "--json")
    right = json.loads(out)
    assert (code, right["ok"], right["findings"], len(right["digest"])) == (0, True, [], 64)
    deployment.files["systems/registry.toml"]["agency"] = "nobody"
    code, out, _ = run("check", deployment.write(), "--json")
    wrong = json.loads(out)
    assert (code, wrong["ok"], wrong["digest"]) == (1, False, None)
    text = "there is no agency 'nobody'"
    assert wrong["findings"] == [{"file": "systems/registry.toml", "where": "agency", "message": text}]


def test_check_without_a_folder_exits_2_with_one_line(tmp_path: Path) -> None:
    code, out, err = run("check", tmp_path / "nowhere")
    assert (code, out) == (2, "")
    assert err.splitlines() == [f"gsb: cannot read the deployment: there is no folder {tmp_path / 'nowhere'}"]


@pytest.mark.parametrize(("algorithm", "names"), [("ES256", {"ES256"}), ("Ed25519", {"Ed25519", "EdDSA"})])
def test_keygen_makes_a_pair_that_fits(tmp_path: Path, algorithm: str, names: set[str]) -> None:
    code, out, _ = run("keygen", tmp_path / "payroll.jwk.json", "--alg", algorithm)
    private = jwk.read_private((tmp_path / "payroll.jwk.json").read_bytes())
    public = jwk.read_public((tmp_path / "payroll.pub.jwk.json").read_bytes())
    assert (code, out.strip()) == (0, private.kid)
    assert public.kid == private.kid
    assert public.algorithms == names
    assert (tmp_path / "payroll.jwk.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("existing", ["payroll.jwk.json", "payroll.pub.jwk.json"])
def test_keygen_never_writes_over_a_file(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("mine")
    code, _, err = run("keygen", tmp_path / "payroll.jwk.json")
    assert code == 2
    assert existing in err
    assert [path.name for path in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text() == "mine"


def test_keygen_makes_store_keys(tmp_path: Path) -> None:
    file = tmp_path / "store.key"
    assert run("keygen", "--store", file) == (0, "", "")
    assert len(read_key(file)) == 32
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["store.key"]
    before = file.read_bytes()
    assert run("keygen", "--store", file)[0] == 2
    assert file.read_bytes() == before


def test_keygen_tells_when_it_cannot_write(tmp_path: Path) -> None:
    code, _, err = run("keygen", tmp_path / "nowhere" / "payroll.jwk.json")
    assert code == 2
    assert "No such file or directory" in err


def test_the_public_twin_is_named_after_the_private_file() -> None:
    names = [public_name(Path(f"keys/{name}")).name for name in ("a.jwk.json", "a.jwk", "a.json", "a", "a.key")]
    assert names == ["a.pub.jwk.json", "a.pub.jwk.json", "a.pub.jwk.json", "a.pub.jwk.json", "a.key.pub.jwk.json"]
