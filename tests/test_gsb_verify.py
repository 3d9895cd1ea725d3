"""The auditor's file as an auditor has it: a file of its own, run as a program, against folders and addresses.

What it says of logs, receipts and evidence is held to the bus's own verifier in ``test_verify.py`` and
``test_tampering.py``.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gsb.evidence import gsb_verify
from tests.support.logs import ORIGIN, WrittenLog, content, run_auditor

FILE = Path(gsb_verify.__file__)


@pytest.fixture
def log(tmp_path: Path) -> WrittenLog:
    log = WrittenLog(tmp_path / "log")
    (tmp_path / "older").write_bytes(log.grow_to(300))
    log.grow_to(600)
    return log


# --- the file


def test_it_is_one_file_that_needs_python_and_cryptography_alone() -> None:
    tree = ast.parse(FILE.read_text("utf-8"))
    named = [each.module or "" for each in ast.walk(tree) if isinstance(each, ast.ImportFrom)]
    named += [alias.name for each in ast.walk(tree) if isinstance(each, ast.Import) for alias in each.names]
    packages = {name.partition(".")[0] for name in named}
    assert packages - set(sys.stdlib_module_names) == {"cryptography"}
    assert len(FILE.read_text("utf-8").splitlines()) <= 400


def test_a_copy_of_it_elsewhere_verifies_the_log_and_a_receipt(log: WrittenLog, tmp_path: Path) -> None:
    copy = shutil.copy(FILE, tmp_path / "copy.py")
    # -P: without the folder of the file, so that nothing but installed packages can be imported.
    command = [sys.executable, "-P", copy]
    ran = subprocess.run([*command, log.folder, "--key", log.vkey], capture_output=True, text=True, check=False)
    root = log.checkpoint.read_text().split("\n")[2]
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"verified: {ORIGIN}, 600 entries, root {root}\n", "")
    (tmp_path / "receipt").write_bytes(log.receipt(40).text())
    ran = subprocess.run(
        [*command, "receipt", tmp_path / "receipt", "--key", log.vkey], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"verified: {ORIGIN}, entry 40 of 600: ")
    (log.folder / "tile/entries/001").unlink()
    ran = subprocess.run([*command, log.folder, "--key", log.vkey], capture_output=True, text=True, check=False)
    said = "NOT VERIFIED: entry 256: tile/entries/001: is missing\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", said)


# --- the command


def test_the_word_log_may_be_left_out(log: WrittenLog) -> None:
    words = [str(log.folder), "--key", log.vkey]
    assert run_auditor(["log", *words]) == run_auditor(words) == run_auditor([*words[1:], words[0]])
    assert run_auditor(words)[0] == 0


def test_it_finds_the_log_of_the_key_in_the_folder_of_a_bus(tmp_path: Path) -> None:
    older, newer = WrittenLog(tmp_path / "logs/2025", origin="bus.example/log/2025"), WrittenLog(tmp_path / "logs/2026")
    older.grow_to(3)
    newer.grow_to(5)
    for log, size in ((older, 3), (newer, 5)):
        status, said, _ = run_auditor([str(tmp_path / "logs"), "--key", log.vkey])
        assert (status, f", {size} entries, " in said) == (0, True)


def test_it_says_what_it_held_the_log_against_and_what_it_did_not_verify(log: WrittenLog, tmp_path: Path) -> None:
    log.grow_to(610, signed=False)
    status, said, _ = run_auditor([str(log.folder), "--key", log.vkey, "--from", str(tmp_path / "older")])
    assert status == 0
    assert said.split("\n")[1:] == [
        "It extends the older checkpoint of 300 entries.",
        "Behind them lie 10 more, which no checkpoint covers yet. They were not verified.",
        "",
    ]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["{log}"],
        ["{log}", "--key", "bus.example"],
        ["{log}", "--key", "{key}x"],
        ["{log}", "--key", "other{key}"],
        ["{log}", "--key", "witness.example+00000000+BAAA"],
        ["{log}", "{log}", "--key", "{key}"],
        ["{log}/none", "--key", "{key}"],
        ["{log}", "--key", "{key}", "--from", "{log}/none"],
        ["{log}", "--key", "{key}", "--evidence", "{log}/checkpoint"],
        ["receipt", "{log}/none", "--key", "{key}"],
        ["receipt", "{log}/checkpoint", "--key", "{key}", "--evidence", "{log}/none"],
        ["check", "{log}", "--key", "{key}"],
    ],
)
def test_wrong_use_is_no_verdict(words: list[str], log: WrittenLog, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        gsb_verify.main([word.format(log=log.folder, key=log.vkey) for word in words])
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "error: " in captured.err
    assert "VERIFIED" not in captured.err


def test_a_file_s_name_cannot_write_to_the_terminal(log: WrittenLog) -> None:
    (log.folder / "tile/\x1b[2Jverified").write_bytes(b"")
    status, said, why = run_auditor([str(log.folder), "--key", log.vkey])
    assert (status, said) == (1, "")
    assert why == "NOT VERIFIED: tile/\\x1b[2Jverified: does not belong to a log\n"


def test_a_file_that_cannot_be_read_is_not_verified(log: WrittenLog) -> None:
    (log.folder / "tile/0/001").unlink()
    (log.folder / "tile/0/001").mkdir()
    status, _, why = run_auditor([str(log.folder), "--key", log.vkey])
    assert status == 1
    assert why.startswith("NOT VERIFIED: ")
    assert "tile/0/001" in why


# --- addresses


class Handler(SimpleHTTPRequestHandler):
    """Files of a folder over connections that are kept, as a proxy before a bus serves them."""

    protocol_version = "HTTP/1.1"
    asked: list[str]
    lies: dict[str, tuple[int, bytes]]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path not in self.lies:
            return super().do_GET()
        status, body = self.lies[self.path]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return None

    def log_message(self, *args: Any) -> None:
        """Nothing."""


@contextmanager
def serving(folder: Path, lies: dict[str, tuple[int, bytes]]) -> Iterator[tuple[str, list[str]]]:
    """The address of a folder, and what was asked for. Some paths are answered with a status and a body instead."""
    asked: list[str] = []
    handler = type("_Handler", (Handler,), {"asked": asked, "lies": lies})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_log_behind_an_address_is_verified_by_reading_each_file_once(log: WrittenLog, tmp_path: Path) -> None:
    # Of a log that is served only what the checkpoint covers is asked for.
    log.grow_to(610, signed=False)
    with serving(log.folder.parent, {}) as (url, asked):
        words = [f"{url}/log/", "--key", log.vkey, "--from", str(tmp_path / "older")]
        status, said, why = run_auditor(words)
    assert (status, why) == (0, "")
    assert "It extends the older checkpoint of 300 entries." in said
    names = ["checkpoint", *(f"tile/{kind}/{number}" for kind in ("0", "entries") for number in ("000", "001"))]
    names += ["tile/0/002.p/88", "tile/entries/002.p/88", "tile/1/000.p/2"]
    # The older checkpoint ends within one tile that was read before.
    assert sorted(asked) == sorted(f"/log/{name}" for name in [*names, "tile/0/001"])


LIES = {
    "a tile that is not there": ("tile/0/001", 404, b"", "entry 256: tile/0/001: is missing"),
    "another tile": ("tile/0/001", 200, bytes(8192), "entry 256: tile/0/001: does not agree with the tile above it"),
    "another entry": (
        "tile/entries/001",
        200,
        (len(content(1)).to_bytes(2, "big") + content(1)) * 256,
        "entry 256: tile/entries/001: does not agree with its tile at level 0",
    ),
    "an error": ("tile/0/001", 500, b"sorry", "tile/0/001: the server answers 500 with 5 bytes"),
    "a redirect": ("checkpoint", 302, b"", "checkpoint: the server answers 302 with 0 bytes"),
    "a file without end": ("tile/0/001", 200, bytes(gsb_verify.BIGGEST + 9), "tile/0/001: the server answers 200 with"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_server_that_lies_is_not_believed(lie: str, log: WrittenLog) -> None:
    path, status, body, why = LIES[lie]
    with serving(log.folder, {f"/{path}": (status, body)}) as (url, _):
        told = run_auditor([url, "--key", log.vkey])
    assert told[:2] == (1, "")
    assert told[2].startswith(f"NOT VERIFIED: {why}")


def test_an_address_where_nobody_answers_is_not_verified(log: WrittenLog) -> None:
    with serving(log.folder, {}) as (url, _):
        pass
    status, _, why = run_auditor([url, "--key", log.vkey])
    assert status == 1
    assert why.startswith("NOT VERIFIED: ")
