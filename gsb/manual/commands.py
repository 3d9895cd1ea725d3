"""The help of every command as text of one width, made from the commands themselves.

It reads what typer knows of them and lays it out anew: what ``--help`` prints depends on the terminal.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from typer.core import TyperGroup
from typer.main import get_command

from gsb.cli.main import app

WIDTH = 116
COLUMN = 28
"""Where the meanings of options begin."""
INDENT = "    "


def commands() -> str:
    """Every command with its usage, its help, its arguments and options."""
    return "\n\n".join(f"```text\n{_help(name, command)}\n```" for name, command in _walk("gsb", get_command(app)))


def names() -> list[str]:
    """Every command as it is typed."""
    return [name for name, _ in _walk("gsb", get_command(app))]


def _walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(command, TyperGroup):
        yield name, command
        return
    for below, each in command.commands.items():
        yield from _walk(f"{name} {below}", each)


def _help(name: str, command: Any) -> str:
    shown = [each for each in command.params if not each.hidden]
    arguments = [each for each in shown if each.param_type_name == "argument"]
    options = [each for each in shown if each.param_type_name == "option"]
    lines = [" ".join([name, *map(_name, arguments), *(["[OPTIONS]"] if options else [])])]
    for paragraph in (command.help or "").split("\n\n"):
        lines += [
            "",
            textwrap.fill(" ".join(paragraph.split()), WIDTH, initial_indent=INDENT, subsequent_indent=INDENT),
        ]
    lines += [""] if shown else []
    for each in [*arguments, *options]:
        lines += _parameter(each)
    return "\n".join(lines)


def _name(parameter: Any) -> str:
    """An argument, or an option with what it takes, as it is typed."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    longest: str = max(parameter.opts, key=len)
    if parameter.is_flag:
        return longest
    number = parameter.min is not None or isinstance(parameter.default, (int, float))
    return f"{longest} {parameter.metavar or ('N' if number else longest.rpartition('-')[2].upper())}"


def _parameter(each: Any) -> list[str]:
    """Its lines: the meaning stands beside the name, or below one that is too long for it."""
    start = f"{INDENT}{_name(each)}"
    meaning = " ".join(filter(None, (each.help, _facts(each))))
    lines = textwrap.wrap(meaning, WIDTH - COLUMN)
    first = [f"{start:{COLUMN - 2}}  {lines.pop(0)}"] if lines and len(start) <= COLUMN - 2 else [start]
    return first + [" " * COLUMN + line for line in lines]


def _facts(each: Any) -> str:
    """What more there is to know of a parameter, in brackets."""
    option = each.param_type_name == "option"
    facts = ["required"] if option and each.required else []
    if each.min is not None:
        facts.append(f"at least {each.min}" if each.max is None else f"{each.min} to {each.max}")
    if each.default is not None and not (option and each.is_flag):
        facts.append(f"default {each.default}")
    if each.envvar:
        facts.append(f"or ${each.envvar}" if facts == ["required"] else f"${each.envvar}")
    return f"[{'; '.join(facts)}]" if facts else ""
