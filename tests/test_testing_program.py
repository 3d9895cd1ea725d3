"""The contract suite with a system of the adapter's own: a program that speaks a protocol which the suite does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from gsb.testing import Unfit, find_subject, grade
from gsb.testing.contract import RULES, judge

CODE = '''
"""Entries in a book that speaks lines of JSON over TCP."""
import asyncio
import json
from gsb.sdk import Adapter, Broken, Refused, Reply, Settings, Unavailable

class BookSettings(Settings):
    host: str
    """Where it is."""
    port: int
    """Its port."""

class Book(Adapter):
    Settings = BookSettings

    async def handle(self, request):
        settings = self.context.settings
        try:
            reader, writer = await asyncio.open_connection(settings.host, settings.port)
        except OSError as error:
            raise Unavailable("down", sent=False) from error
        try:
            asked = {"name": request.exchange, "entry": request.body["entry"]}
            writer.write(json.dumps(asked).encode() + b"\\n")
            line = await reader.readline()
        except OSError as error:
            raise Unavailable("gone", sent=True) from error
        finally:
            writer.close()
        return self.read(line)

    def read(self, line):
        if not line.endswith(b"\\n"):
            raise Unavailable("no answer", sent=True)
        try:
            answer = json.loads(line)
            return Reply({"number": answer["number"]})
        except (ValueError, KeyError, TypeError) as error:
            raise Broken("nonsense") from error
'''
PEER = """
import asyncio, json, pathlib, sys

BOOK = pathlib.Path("peer/book.json")

async def talk(reader, writer):
    asked = json.loads(await reader.readline())
    book = json.loads(BOOK.read_text())
    if asked["name"] not in book:
        book.append(asked["name"])
        BOOK.write_text(json.dumps(book))
    writer.write(json.dumps({"number": book.index(asked["name"])}).encode() + b"\\n")
    writer.close()

async def main():
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)

asyncio.run(main())
"""
CONTRACT = """
peer = "program"
[settings]
host = "{host}"
port = "{port}"
[services."book/entry/v1"]
effect = "repeatable"
schemas = "schemas"
"""
MANIFEST = 'name = "NAME"\ntitle = "T"\nsummary = "S"\nowner = "O"\napi = 1\n'
PROJECT = '[project]\nname = "NAME"\n[project.entry-points."gsb.adapters"]\nNAME = "NAME:Book"\n'
NUMBER = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}
ENTRY = {"type": "object", "properties": {"entry": {"type": "string"}}, "required": ["entry"]}
EXAMPLE = {"service": "book/entry/v1", "request": {"entry": "a"}, "reply": {"number": 1}}

Edit = tuple[str, str, str]
MISTAKES: dict[str, Edit] = {
    "down": ("__init__.py", "sent=False", "sent=True"),
    "slow": ("__init__.py", "        finally:\n", "        finally:\n            await reader.read()\n"),
    "half_closed": (
        "__init__.py",
        'raise Unavailable("no answer", sent=True)',
        'return Reply({"number": 1}) if line else self.none()',
    ),
    "reply": ("contract/peer.py", "book.index(", "1 + book.index("),
    "repeated": ("contract/peer.py", 'if asked["name"] not in book:', "if True:"),
    "garbage": ("__init__.py", "ValueError, ", ""),
}


def adapter(root: Path, name: str, edits: Sequence[Edit] = ()) -> str:
    """The adapter as a package in a folder of its own, with these mistakes."""
    files = {
        "__init__.py": CODE,
        "adapter.toml": MANIFEST,
        "README.md": "`host` and `port`",
        "contract/contract.toml": CONTRACT,
        "contract/peer.py": PEER,
        "contract/peer/book.json": '["before"]',
        "contract/entry.json": json.dumps(EXAMPLE),
        "contract/schemas/request.json": json.dumps(ENTRY),
        "contract/schemas/reply.json": json.dumps(NUMBER),
    }
    for file, old, new in edits:
        assert old in files[file], old
        files[file] = files[file].replace(old, new)
    for file, text in files.items():
        path = root / name / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("NAME", name))
    (root / name / "pyproject.toml").write_text(PROJECT.replace("NAME", name))
    return str(root / name)


def test_an_adapter_is_tried_with_the_program_that_its_contract_brings(tmp_path: Path) -> None:
    verdicts = asyncio.run(grade(find_subject(adapter(tmp_path, "book_right"))))
    assert {each.rule.name: each.reasons for each in verdicts if each.result == "fail"} == {}
    assert [each.rule.name for each in verdicts if each.result == "exempt"] == ["throttled"]


@pytest.mark.parametrize("rule", MISTAKES)
def test_a_mistake_shows_with_a_program_too(rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gsb.testing.subject.GRACE", 2.0)
    (found,) = [each for each in RULES if each.name == rule]
    subject = find_subject(adapter(tmp_path, f"book_{rule}", [MISTAKES[rule]]))
    assert asyncio.run(judge(subject, found)).result == "fail"


@pytest.mark.parametrize("says", ["nothing()", "print('here')", "pass"], ids=["an error", "words", "nothing"])
def test_a_program_that_says_no_port_is_told(says: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    (rule,) = [each for each in RULES if each.name == "reply"]
    name = f"book_{request.node.callspec.id.replace(' ', '_')}"
    subject = find_subject(adapter(tmp_path, name, [("contract/peer.py", "asyncio.run(main())", says)]))
    with pytest.raises(Unfit, match="at which port it listens"):
        asyncio.run(judge(subject, rule))
