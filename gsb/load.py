"""Reads a deployment's folder into typed tables. Stops at nothing: every problem is a finding.

It knows which files there are and what shape each has; what must hold between them is for ``gsb.lint``. It reads only
``*.toml`` files, and imports nothing. A crash means that the folder cannot be read at all (OSError).
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from gsb.config import Agency, Agreement, Gsb, Operator, Service, System
from gsb.forms import ID, SERVICE, Table

FILES = "gsb.toml and {agencies,operators,systems,services,agreements}/<id>.toml"
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing wrong with a deployment."""

    file: str
    """Path of the file, within the deployment's folder if it lies there."""
    where: str
    """Dotted path inside the file; empty for the whole of it."""
    message: str
    """What is wrong, never with a secret."""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.where, self.message) if part)


class ConfigInvalid(Exception):
    """A deployment that cannot run; ``findings`` is every reason at once."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = sorted(set(findings))
        super().__init__("\n".join(map(str, self.findings)))


@dataclass(frozen=True, slots=True)
class Tables:
    """What the files of a deployment say. A file that is wrong in itself has an id but no table."""

    folder: Path
    gsb: Gsb | None = None
    agencies: Mapping[str, Agency] = field(default_factory=dict)
    operators: Mapping[str, Operator] = field(default_factory=dict)
    systems: Mapping[str, System] = field(default_factory=dict)
    services: Mapping[str, Service] = field(default_factory=dict)
    agreements: Mapping[str, Agreement] = field(default_factory=dict)
    ids: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Every id of a kind (``agencies``, ...) for which there is a file."""
    contents: Mapping[str, bytes] = field(default_factory=dict)
    """The files as they were read, by their path in the folder."""


KINDS: Mapping[str, type[Table]] = {
    "agencies": Agency,
    "operators": Operator,
    "systems": System,
    "services": Service,
    "agreements": Agreement,
}


def load(folder: Path) -> tuple[Tables, list[Finding]]:
    """The tables in a folder, and everything wrong with their files. Raises NotADirectoryError or another OSError."""
    if not folder.is_dir():
        raise NotADirectoryError(f"there is no folder {folder}")
    folder = folder.resolve()
    findings: list[Finding] = []
    contents: dict[str, bytes] = {}
    tables: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    ids: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for file in files(folder, ".toml"):
        kind, name, problem = _place(file)
        if problem:
            findings.append(Finding(file, "", problem))
            continue
        contents[file] = (folder / file).read_bytes()
        table, wrong = _read(file, contents[file], KINDS.get(kind, Gsb), folder)
        findings += wrong
        ids.setdefault(kind, set()).add(name)
        if table is not None:
            tables.setdefault(kind, {})[name] = table
    if "gsb.toml" not in contents:
        findings.append(Finding("gsb.toml", "", "is missing: the bus itself must be described"))
    gsb = tables.pop("", {}).get("gsb")
    frozen = {kind: frozenset(names) for kind, names in ids.items()}
    return Tables(folder, gsb, **tables, ids=frozen, contents=contents), findings


def files(folder: Path, *endings: str) -> list[str]:
    """Paths within the folder of every file with one of these endings, but for hidden ones.

    A mounted ConfigMap keeps its versions in hidden folders, and what it shows are links to them, to folders too.
    """
    found: list[str] = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name[0] != "." and not _turns_back(Path(place, name))]
        inside = Path(place).relative_to(folder)
        found += [(inside / name).as_posix() for name in names if name.endswith(endings) and name[0] != "."]
    return sorted(found)


def _turns_back(folder: Path) -> bool:
    """Whether it is a link to a folder that it lies in, which would never end."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _place(file: str) -> tuple[str, str, str]:
    """Kind and id of a file, and what is wrong with its place."""
    if file == "gsb.toml":
        return "", "gsb", ""
    kind, _, rest = file.removesuffix(".toml").partition("/")
    if kind not in KINDS or not rest:
        return kind, rest, f"is not read; there are {FILES}{suggest(kind, [*KINDS, 'gsb'])}"
    if kind == "services":
        fits, form = re.fullmatch(SERVICE, rest), "services/<system>/<service>/v<n>.toml"
    else:
        fits, form = re.fullmatch(ID, rest) if len(rest) <= 64 else None, f"{kind}/<id>.toml"
    if not fits:
        return kind, rest, f"its path must have the form {form}, with ids of a-z, 0-9 and single hyphens"
    return kind, rest, ""


def _read(file: str, content: bytes, model: type[Table], folder: Path) -> tuple[Table | None, list[Finding]]:
    try:
        data = tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        return None, [Finding(file, "", "is not UTF-8")]
    except tomllib.TOMLDecodeError as error:
        return None, [Finding(file, "", f"is not TOML: {error}")]
    return validate(model, data, file, folder)


def validate(
    model: type[M], data: Mapping[str, Any], file: str, folder: Path, *prefix: str
) -> tuple[M | None, list[Finding]]:
    """A table of this model, or everything that is wrong with it; ``prefix`` is the table's place in the file."""
    try:
        return model.model_validate(data, context={"folder": folder}), []
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)
    return None, [Finding(file, ".".join((*prefix, *_dotted(data, each))), _message(model, each)) for each in wrong]


def _dotted(data: Any, error: Mapping[str, Any]) -> Iterator[str]:
    """The error's location without the names of union members, which stand in no file."""
    for step in error["loc"]:
        inside = isinstance(data, list) if isinstance(step, int) else isinstance(data, Mapping) and step in data
        if inside:
            data = data[step]
            yield str(step)
    if error["type"] == "missing":
        yield str(error["loc"][-1])


def _message(model: type[BaseModel], error: Mapping[str, Any]) -> str:
    match error["type"]:
        case "extra_forbidden":
            return f"is not known{suggest(str(error['loc'][-1]), _names(model, error['loc'][:-1]))}"
        case "missing":
            return "is missing"
        case _:
            return str(error["msg"]).removeprefix("Value error, ")


def _names(model: type[BaseModel], location: tuple[int | str, ...]) -> set[str]:
    """The fields that a table at this location may have."""
    models = {model}
    for step in location:
        fields = [each.model_fields[step] for each in models if isinstance(step, str) and step in each.model_fields]
        if fields:
            models = {each for found in fields for each in _models(found.annotation)}
    return {name for each in models for name in each.model_fields}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _models(each)


def suggest(name: str, known: Iterable[str]) -> str:
    """``; did you mean ...?`` when something known is close to the name, else nothing."""
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
