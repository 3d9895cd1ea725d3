"""The commands of whoever checks: the whole log from a folder or an address, and a receipt from a file.

On logs that are written for the test, without a bus; what the commands ask of a bus is in ``test_receipts`` and
``test_erase``, and that the verifying itself misses nothing in ``test_tampering``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gsb.cli.evidence.sources import BIGGEST
from gsb.cli.main import app
from gsb.evidence.merkle import leaf_hash
from tests.support.logs import SALT, WrittenLog, content, evidence

SIZE = 300
"""Entries: a full bundle and a partial one."""


@pytest.fixture
def log(tmp_path: Path) -> WrittenLog:
    made = WrittenLog(tmp_path / "log" / "2026")
    made.grow_to(SIZE)
    return made


def gsb(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def said(result: Result) -> Any:
    return json.loads(result.stdout)


# --- gsb log verify


def test_a_whole_log_is_verified_and_told(log: WrittenLog) -> None:
    ran = gsb("log", "verify", log.folder, "--key", log.vkey)
    assert (ran.exit_code, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"log verified: bus.example/log/2026, {SIZE} entries, root ")
    told = said(gsb("log", "verify", log.folder, "--key", log.vkey, "--json"))
    root = log.checkpoint.read_text("utf-8").splitlines()[2]
    assert told == {
        "verified": True,
        "origin": "bus.example/log/2026",
        "size": SIZE,
        "root": root,
        "older": None,
        "unsigned": 0,
        "cosigned": {},
        "timestamps": [],
    }


def test_the_folder_of_all_logs_leads_to_the_one_of_the_key(log: WrittenLog, tmp_path: Path) -> None:
    other = WrittenLog(tmp_path / "log" / "2027", key=log.signer.key, origin="bus.example/log/2027")
    other.grow_to(2)
    for each, size in ((log, SIZE), (other, 2)):
        told = said(gsb("log", "verify", tmp_path / "log", "--key", each.vkey, "--json"))
        assert (told["origin"], told["size"]) == (each.signer.verifier.name, size)


def test_the_first_bad_entry_is_named(log: WrittenLog) -> None:
    bundle = log.folder / "tile/entries/000"
    data = bytearray(bundle.read_bytes())
    data[data.index(content(41)) + 3] ^= 1
    bundle.write_bytes(data)
    ran = gsb("log", "verify", log.folder, "--key", log.vkey)
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert ran.stderr.startswith("gsb: not verified: entry 41: tile/entries/000: ")
    assert len(ran.stderr.splitlines()) == 1
    ran = gsb("log", "verify", log.folder, "--key", log.vkey, "--json")
    assert ran.exit_code == 1
    told = said(ran)
    assert (told["verified"], told["index"], told["path"]) == (False, 41, "tile/entries/000")


def test_it_must_extend_the_checkpoint_that_was_kept(log: WrittenLog, tmp_path: Path) -> None:
    kept, forked = tmp_path / "kept", tmp_path / "forked"
    kept.write_bytes(log.checkpoint.read_bytes())
    log.grow_to(SIZE + 300)
    ran = gsb("log", "verify", log.folder, "--key", log.vkey, "--from", kept)
    assert (ran.exit_code, ran.stdout.splitlines()[1]) == (0, f"it extends the older checkpoint of {SIZE} entries")
    forked.write_bytes(log.sign(SIZE, bytes(32)))
    ran = gsb("log", "verify", log.folder, "--key", log.vkey, "--from", forked)
    assert ran.exit_code == 1
    assert "do not extend" in ran.stderr


def test_entries_that_are_not_signed_yet_are_told_apart(log: WrittenLog) -> None:
    log.grow_to(SIZE + 7, signed=False)
    ran = gsb("log", "verify", log.folder, "--key", log.vkey)
    assert (ran.exit_code, ran.stdout.splitlines()[1]) == (0, "7 more entries are not signed yet, and not verified")


def test_another_key_verifies_nothing(log: WrittenLog, tmp_path: Path) -> None:
    other = WrittenLog(tmp_path / "other", origin="bus.example/log/2026")
    ran = gsb("log", "verify", log.folder, "--key", other.vkey)
    assert ran.exit_code == 1
    assert "checkpoint" in ran.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["DIR", "--key", "bus.example/log/2026+00000000+AAAA"], "--key is no key of a log"),
        (["DIR", "--key", "nonsense"], "--key is no key of a log"),
        (["NOWHERE", "--key", "VKEY"], "is neither a folder nor a URL"),
        (["DIR", "--key", "VKEY", "--from", "NOWHERE"], "cannot read"),
        (["DIR", "--key", "VKEY", "--auditor", "aude"], "an auditor signs"),
        (["http://127.0.0.1:1/elsewhere", "--key", "VKEY", "--auditor", "aude"], "an auditor signs"),
    ],
)
def test_what_cannot_be_carried_out_is_told_in_one_line(log: WrittenLog, words: list[str], why: str) -> None:
    real = {"DIR": str(log.folder), "VKEY": log.vkey, "NOWHERE": str(log.folder / "nowhere")}
    ran = gsb("log", "verify", *(real.get(word, word) for word in words))
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert why in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


class Quiet(SimpleHTTPRequestHandler):
    """Files of a folder, as any static server serves them."""

    def log_message(self, *_: object) -> None:
        """Nothing on the standard error of the tests."""


class Closed(Quiet):
    """Hands out checkpoints, and the rest to nobody."""

    def do_GET(self) -> None:
        if self.path.endswith("/checkpoint"):
            super().do_GET()
        else:
            self.send_error(401)


@contextmanager
def served(folder: Path, handler: type[Quiet] = Quiet) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("path", ["/log", "/log/", "/log/2026"])
def test_a_log_is_verified_where_it_is_served(log: WrittenLog, tmp_path: Path, path: str) -> None:
    with served(tmp_path) as url:
        ran = gsb("log", "verify", url + path, "--key", log.vkey, "--json")
    assert ran.exit_code == 0, ran.stderr
    assert said(ran)["size"] == SIZE


def test_a_bad_file_is_bad_where_it_is_served_too(log: WrittenLog, tmp_path: Path) -> None:
    (log.folder / "tile/entries/001.p/44").unlink()
    with served(tmp_path) as url:
        ran = gsb("log", "verify", f"{url}/log", "--key", log.vkey)
    assert ran.exit_code == 1
    assert "entry 256: tile/entries/001.p/44: is missing" in ran.stderr


def test_a_server_that_withholds_files_is_not_a_bad_log(log: WrittenLog, tmp_path: Path) -> None:
    with served(tmp_path, Closed) as url:
        ran = gsb("log", "verify", f"{url}/log", "--key", log.vkey)
    assert ran.exit_code == 2
    assert "status 401; there the files of a log are for auditors" in ran.stderr
    ran = gsb("log", "verify", f"{url}/log", "--key", log.vkey)
    assert ran.exit_code == 6  # it has gone


def test_a_server_that_never_ends_is_cut_off(log: WrittenLog, tmp_path: Path) -> None:
    with (log.folder / "tile/0/000").open("wb") as file:
        file.truncate(BIGGEST + 1)
    with served(tmp_path) as url:
        ran = gsb("log", "verify", f"{url}/log", "--key", log.vkey)
    assert ran.exit_code == 2
    assert f"more than {BIGGEST} bytes" in ran.stderr


# --- gsb receipt verify


@pytest.fixture
def receipt(log: WrittenLog, tmp_path: Path) -> Path:
    path = tmp_path / "exchange.tlog-proof"
    path.write_bytes(log.receipt(7).text())
    return path


def opened(index: int, salt: bytes = SALT) -> str:
    """What an inspector gets of the entry at this index."""
    leaf, proof = leaf_hash(content(index)), evidence(index)
    each = {"leaf": leaf, "salt": salt, "evidence": proof}
    told = {name: base64.urlsafe_b64encode(value).decode().rstrip("=") for name, value in each.items()}
    return json.dumps({"exchange": "x", "entries": [told]})


def test_a_receipt_proves_its_entry_without_log_or_bus(log: WrittenLog, receipt: Path) -> None:
    ran = gsb("receipt", "verify", receipt, "--key", log.vkey)
    assert ran.exit_code == 0, ran.stderr
    assert said(ran) == json.loads(content(7))
    assert ran.stderr == f"receipt verified: entry 7 of the {SIZE} of bus.example/log/2026\n"
    told = said(gsb("receipt", "verify", receipt, "--key", log.vkey, "--json"))
    assert (told["verified"], told["index"], told["entry"], told["evidence"]) == (True, 7, json.loads(content(7)), None)


def test_evidence_is_held_to_the_receipt(log: WrittenLog, receipt: Path, tmp_path: Path) -> None:
    right, other, wrong = (tmp_path / name for name in ("right", "other", "wrong"))
    right.write_text(opened(7), "utf-8")
    other.write_text(opened(8), "utf-8")
    wrong.write_text(opened(7, bytes(32)), "utf-8")
    ran = gsb("receipt", "verify", receipt, "--key", log.vkey, "--evidence", right)
    assert (ran.exit_code, said(ran)["evidence"]) == (0, json.loads(evidence(7)))
    assert f"commits to these {len(evidence(7))} bytes" in ran.stderr
    for path, why in ((other, "holds nothing for this entry"), (wrong, "is not what the entry commits to")):
        ran = gsb("receipt", "verify", receipt, "--key", log.vkey, "--evidence", path)
        assert ran.exit_code == 1
        assert why in ran.stderr


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"index 7", b"index 8"), (b"tlog-proof@v1", b"tlog-proof@v2"), (b"bus.example/log/2026\n300", b"x\n300")],
)
def test_a_receipt_that_was_changed_proves_nothing(log: WrittenLog, receipt: Path, old: bytes, new: bytes) -> None:
    data = receipt.read_bytes()
    assert old in data
    receipt.write_bytes(data.replace(old, new, 1))
    ran = gsb("receipt", "verify", receipt, "--key", log.vkey)
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert ran.stderr.startswith("gsb: not verified: the receipt")


def test_a_receipt_that_is_not_there_is_wrong_use(log: WrittenLog, tmp_path: Path) -> None:
    assert gsb("receipt", "verify", tmp_path / "none", "--key", log.vkey).exit_code == 2
