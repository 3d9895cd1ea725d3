"""The rules that an adapter keeps while it stands still: of its manifest, settings, examples and imports.

Each is a function of the subject that yields what breaks it. Code is read as a syntax tree here and never run.
"""

from __future__ import annotations

import ast
from collections.abc import AsyncIterator, Iterator
from typing import Any, get_args

from pydantic import BaseModel

from gsb.testing.subject import Subject


async def manifest(subject: Subject) -> AsyncIterator[str]:
    """Operators read it before they allow the adapter, and callers are told by its codes what a refusal means."""
    told, manual = subject.loaded.manifest, _manual(subject)
    if not manual:
        yield "there is no README.md beside adapter.toml"
    for code, title in told.errors.items():
        if not title.strip():
            yield f"the code {code} has no title"
        if manual and f"`{code}`" not in manual:
            yield f"README.md does not say when {code} is raised"
    for code in sorted(_refusals(subject) - set(told.errors)):
        yield f"the code {code} is raised, and adapter.toml does not declare it"
    for name, cassette in subject.cassettes.items():
        if cassette.refused is not None and cassette.refused not in told.errors:
            yield f"{name}.json ends with the code {cassette.refused}, which adapter.toml does not declare"


async def settings(subject: Subject) -> AsyncIterator[str]:
    """Whoever writes a deployment has the docstrings of the fields and the manual, and nothing else."""
    kind, manual = subject.loaded.kind, _manual(subject)
    for model in (kind.Settings, kind.ServiceSettings):
        for owner, name, field in _fields(model, set()):
            if not field.description:
                yield f"the setting {owner.__name__}.{name} has no docstring"
        for name in model.model_fields:
            if f"`{name}`" not in manual:
                yield f"README.md does not explain the setting {name}"


async def examples(subject: Subject) -> AsyncIterator[str]:
    """An example shows what the service is for; and all other rules are tried with it."""
    if not subject.contract.services:
        yield "contract.toml names no service"
    shown = {cassette.service for cassette in subject.examples()}
    for service in subject.contract.services:
        if service not in shown:
            yield f"no cassette shows {service} with a reply"
    for name, cassette in subject.cassettes.items():
        for fault in subject.schemas[f"{cassette.service}/request"].faults(cassette.request):
            yield f"the request of {name}.json does not fit its schema: {fault.pointer or '/'}: {fault.detail}"


async def imports(subject: Subject) -> AsyncIterator[str]:
    """What is outside ``gsb.sdk`` changes without notice; keys, store and evidence are not an adapter's business."""
    for path, tree in _trees(subject):
        for node in ast.walk(tree):
            for name in _imported(node):
                if name.partition(".")[0] == "gsb" and not f"{name}.".startswith("gsb.sdk."):
                    yield f"{path} imports {name}"


def _manual(subject: Subject) -> str:
    path = subject.loaded.folder / "README.md"
    return path.read_text("utf-8") if path.is_file() else ""


def _trees(subject: Subject) -> Iterator[tuple[str, ast.Module]]:
    folder = subject.loaded.folder
    for path in sorted(folder.rglob("*.py")):
        yield path.relative_to(folder).as_posix(), ast.parse(path.read_text("utf-8"))


def _refusals(subject: Subject) -> set[str]:
    """The codes that stand as such in ``Refused("...")``."""
    found = set()
    for _, tree in _trees(subject):
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Name(id="Refused"), args=[ast.Constant(value=str(code)), *_]):
                    found.add(code)
    return found


def _imported(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=str(module), names=names, level=0):
            # ``from gsb import sdk`` is an import of gsb.sdk.
            yield from (f"{module}.{alias.name}" if module == "gsb" else module for alias in names)
        case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name)), *_]):
            yield name


def _fields(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[tuple[type[BaseModel], str, Any]]:
    """Every field of a model and of the models in it, each model once."""
    if model in seen:
        return
    seen.add(model)
    for name, field in model.model_fields.items():
        yield model, name, field
        for inner in _models(field.annotation):
            yield from _fields(inner, seen)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _models(each)
