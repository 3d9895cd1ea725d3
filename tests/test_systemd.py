"""The unit for systemd: systemd takes it, it confines the node, and it gives it the time that a stop needs."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

from gsb.config import Limits, Listen
from gsb.node import LAST_LOOK
from tests.support.needs import needs

UNIT = Path(__file__).parents[1] / "config" / "systemd" / "gsb.service"
README = UNIT.parents[2] / "README.md"
SOCKET = UNIT.with_name("gsb.socket")
EXPOSED = 2.0
"""Of systemd's own measure, from 0 to 10, what the node may be exposed at most; above it begins what is medium."""


def section(name: str, file: Path = UNIT) -> configparser.SectionProxy:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[method-assign, assignment]
    unit.read_string(file.read_text("utf-8"))
    return unit[name]


def service() -> configparser.SectionProxy:
    return section("Service")


def analyze(*words: str) -> str:
    needs(shutil.which("systemd-analyze") is not None, "systemd-analyze is not installed: make deps-test")
    done = subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_systemd_takes_it(tmp_path: Path) -> None:
    installed = tmp_path / "gsb.service"
    gsb = str(Path(sys.executable).with_name("gsb"))
    installed.write_text(UNIT.read_text("utf-8").replace("/opt/gsb/bin/gsb", gsb))
    shutil.copy(SOCKET, tmp_path)
    assert analyze("verify", str(installed), str(tmp_path / SOCKET.name)) == ""


def test_the_node_is_confined() -> None:
    said = analyze("security", "--offline=true", "--no-pager", str(UNIT))
    level = re.search(r"Overall exposure level for gsb.service: ([0-9.]+)", said)
    assert level is not None, said
    assert float(level[1]) < EXPOSED


def test_a_stop_has_the_time_to_drain_and_a_reload_is_a_sighup() -> None:
    assert float(service()["TimeoutStopSec"]) > Limits().drain + LAST_LOOK
    assert service()["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert int(service()["LimitNOFILE"]) > Limits().connections


def test_callers_wait_where_the_node_would_listen() -> None:
    listen = Listen()
    assert f"ListenStream={listen.host}:{listen.port}\n" in SOCKET.read_text("utf-8")


def test_a_deployment_that_is_not_right_is_not_tried_again() -> None:
    assert (service()["Restart"], service()["RestartPreventExitStatus"]) == ("on-failure", "2")


def test_a_node_that_waits_for_something_else_is_tried_again_for_ever() -> None:
    within, tries = float(section("Unit")["StartLimitIntervalSec"]), int(section("Unit")["StartLimitBurst"])
    assert float(service()["RestartSec"]) * tries > within


def test_what_the_units_name_is_made_when_they_are_installed() -> None:
    passage = README.read_text("utf-8").split("### Under systemd")[1].split("###")[0]
    made = re.findall(r"(?:install|useradd|echo|chown|venv).*", passage)
    backup = section("Service", UNIT.with_name("gsb-backup.service"))
    folders = backup["ReadWritePaths"].split()
    recipients = backup["ExecStart"].split("--to ")[1].split()[0]
    assert section("Unit")["Documentation"] == "file:///opt/gsb/README.md"
    for what in (
        *folders,
        recipients,
        "README.md /opt/gsb/",
        "/opt/gsb/bin/pip install '.[backup]'",
        "root:gsb /etc/gsb",
    ):
        assert any(what in command for command in made), what
    started = passage.index("systemctl enable --now")
    assert all(passage.index(what) < started for what in (*folders, recipients, "chown -R root:gsb /etc/gsb"))
