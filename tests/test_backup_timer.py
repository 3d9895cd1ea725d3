"""The nightly backup under systemd: systemd takes it, it is confined as the node is, and its command is one of ours."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from tests.support.backups import Kept, run
from tests.support.recording import recording
from tests.test_systemd import EXPOSED, UNIT, analyze

UNITS = [UNIT.with_name("gsb-backup.service"), UNIT.with_name("gsb-backup.timer")]


def test_systemd_takes_both(tmp_path: Path) -> None:
    gsb = str(Path(sys.executable).with_name("gsb"))
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text("utf-8").replace("/opt/gsb/bin/gsb", gsb))
    assert analyze("verify", *(str(tmp_path / unit.name) for unit in UNITS)) == ""


def test_the_backup_is_confined() -> None:
    said = analyze("security", "--offline=true", "--no-pager", str(UNITS[0]))
    level = re.search(r"Overall exposure level for gsb-backup.service: ([0-9.]+)", said)
    assert level is not None, said
    assert float(level[1]) < EXPOSED


async def test_its_command_makes_a_backup(tmp_path: Path) -> None:
    """With other folders, and a backup of long ago to be deleted."""
    kept = Kept(tmp_path)
    async with recording(kept.root, kept.deployment) as hands:
        await hands.record(1)
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "bus.test-20200101T000000Z.gsb-backup").touch()
    (kept.deployment.folder / "backup.recipients").write_text(f"{kept.recipient}\n", "ascii")
    found = re.search(r"(?m)^ExecStart=(.+)$", UNITS[0].read_text("utf-8"))
    assert found is not None
    program, *words = shlex.split(found[1])
    moved = {"/etc/gsb": str(kept.deployment.folder), "/var/backups/gsb": str(folder)}
    moved["/etc/gsb/backup.recipients"] = str(kept.deployment.folder / "backup.recipients")
    said = await run(*(moved.get(word, word) for word in words))
    assert (program, said.code) == ("/opt/gsb/bin/gsb", 0), said.wrong
    assert "deleted: " in said.wrong
    assert (await kept.verify(Path(said.out.partition(": ")[0]), "--identity", kept.identity)).code == 0


def test_it_is_made_each_night() -> None:
    calendar = re.search(r"(?m)^OnCalendar=(.+)$", UNITS[1].read_text("utf-8"))
    assert calendar is not None
    assert "Next elapse" in analyze("calendar", calendar[1])
