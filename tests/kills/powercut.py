"""A power cut for one folder: afterwards it holds what was synchronised with the disk, and nothing else.

``powercut.c`` keeps the folder's durable image while a process writes; here it is compiled and given to the process,
and the image takes the folder's place once that process was killed.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.support.needs import needs

SOURCE = Path(__file__).with_name("powercut.c")


class PowerCut:
    """Watches ``folder``, as it is now; processes must be started with ``environment``."""

    def __init__(self, folder: Path, room: Path) -> None:
        compiler = shutil.which("cc")
        needs(compiler is not None, "no C compiler for the power cut: make deps-test")
        room.mkdir()
        library = room / "powercut.so"
        command = [
            str(compiler),
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-shared",
            "-fPIC",
            "-o",
            str(library),
            str(SOURCE),
        ]
        subprocess.run([*command, "-ldl", "-lpthread"], check=True)
        self._folder = folder.resolve()
        self._image = room.resolve() / "image"
        self._rescued = room.resolve() / "rescued"
        self.environment = {
            "LD_PRELOAD": str(library.resolve()),
            "GSB_POWERCUT_FOLDER": str(self._folder),
            "GSB_POWERCUT_IMAGE": str(self._image),
        }
        self._note()

    def cut(self) -> None:
        """The power goes and comes back. Every process that had the folder's files open must be dead."""
        self._rescued.mkdir()
        for number, name in self._names():
            kept = self._image / number
            if kept.exists():
                shutil.copyfile(kept, self._rescued / name)
            else:
                (self._rescued / name).touch()
        shutil.rmtree(self._folder)
        self._rescued.rename(self._folder)
        self._note()

    def _names(self) -> list[tuple[str, str]]:
        lines = (self._image / "names").read_text().splitlines()
        return [(number, name) for number, _, name in (line.partition(" ") for line in lines)]

    def _note(self) -> None:
        """Whatever the folder holds now counts as durable."""
        shutil.rmtree(self._image, ignore_errors=True)
        self._image.mkdir()
        files = [(each.stat().st_ino, each) for each in sorted(self._folder.iterdir())]
        for number, each in files:
            shutil.copyfile(each, self._image / str(number))
        (self._image / "names").write_text("".join(f"{number} {each.name}\n" for number, each in files))
