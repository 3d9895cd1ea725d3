"""``gsb adapter new``: a small working adapter under a name of one's own, with everything that belongs to it.

The template is an adapter like any other, whose names are replaced as words; there is no language in it. It writes one
new folder and touches nothing that is there.
"""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from gsb.cli.shared import fail
from gsb.installed import installed
from gsb.sdk.manifest import NAME

TEMPLATE = Path(__file__).parent / "template"
SUFFIX = ".txt"
"""What the files of the template end with, so that nobody takes them for code of the bus."""


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the adapter: a-z, 0-9 and underscores.")],
    into: Annotated[Path, typer.Option("--into", metavar="DIR", help="Where its folder is made.")] = Path(),
) -> None:
    """Write a small working adapter into the new folder NAME, with its schemas, config, examples and tests."""
    if not re.fullmatch(NAME, name) or name.endswith("_") or "__" in name:
        raise fail(f"{name!r} is no name of an adapter: 2 to 40 of a-z, 0-9 and single underscores, first a letter")
    if name in {entry.name for entry in installed()}:
        raise fail(f"an adapter {name!r} is installed; choose another name")
    if keyword.iskeyword(name) or name.startswith("gsb") or _imported(name):
        raise fail(f"{name!r} is a word of Python's, or the name of something else that it imports; choose another")
    folder = into / name
    try:
        folder.mkdir()
        for path, text in files(name):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")
    except FileExistsError as error:
        raise fail(f"{folder} is there already") from error
    except OSError as error:
        raise fail(f"cannot write {error.filename}: {error.strerror}") from error
    typer.echo(f"{folder}: an adapter that works; try it:\n")
    typer.echo(f"  python -m pytest {folder}\n  gsb adapter grade {folder}")


def _imported(name: str) -> bool:
    """Whether Python knows a module of this name; a mere folder is none."""
    found = None if name in sys.stdlib_module_names else find_spec(name)
    return name in sys.stdlib_module_names or (found is not None and found.origin is not None)


def files(name: str) -> Iterator[tuple[str, str]]:
    """Each file of the adapter with its text."""
    for path in sorted(TEMPLATE.rglob(f"*{SUFFIX}")):
        place = path.relative_to(TEMPLATE).as_posix().removesuffix(SUFFIX)
        yield renamed(place, name), renamed(path.read_text("utf-8"), name)


def renamed(text: str, name: str) -> str:
    """The template's own name, in each of the forms in which names are written, replaced by this one."""
    words = name.split("_")
    for old, new in (
        ("land_registry", name),
        ("land-registry", "-".join(words)),
        ("LandRegistry", "".join(word.capitalize() for word in words)),
        ("land registry", " ".join(words)),
        ("Land registry", " ".join(words).capitalize()),
    ):
        text = text.replace(old, new)
    return text
