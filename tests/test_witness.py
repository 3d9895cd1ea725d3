"""A witness over real sockets: what it cosigns, what it refuses, and that nothing makes it go back."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
from typer.testing import CliRunner

from gsb.cli.main import app
from gsb.evidence.checkpoint import Checkpoint, Note, Signature, Signer, open_checkpoint, parse_note
from gsb.evidence.log import Files
from gsb.evidence.witness import Request, parse_request, seen_path
from gsb.load import ConfigInvalid
from gsb.witness.book import Book, StateUnfit
from gsb.witness.settings import read_settings
from tests.support.witness import (
    NOW,
    GrowingLog,
    Witnessing,
    knows,
    knows_yearly,
    witness_process,
    witnessing,
    write_witness,
)

# --- what it cosigns


async def test_what_extends_the_newest_checkpoint_is_cosigned_and_shown(tmp_path: Path) -> None:
    log = GrowingLog()
    async with witnessing(tmp_path / "w", knows(log)) as there:
        assert await there.seen(log) is None
        sizes = [0, 1, 2, 255, 256, 257, 700]
        for old, new in zip([0, *sizes], [*sizes, 700], strict=True):
            assert await there.cosigned(log, old, new) == int(NOW)
            shown = await there.seen(log)
            assert shown is not None
            assert there.verifier.times(shown) == [int(NOW)]
            assert open_checkpoint(shown.encode(), Signer(log.origin, log.key).verifier).size == new


async def test_what_it_has_cosigned_outlives_it(tmp_path: Path) -> None:
    log = GrowingLog()
    async with witnessing(tmp_path / "w", knows(log)) as there:
        await there.cosigned(log, 0, 5)
    async with witnessing(tmp_path / "w", knows(log)) as there:
        assert await there.size(log) == 5
        assert (await there.ask(log.request(0, 6))).body == b"5\n"
        await there.cosigned(log, 5, 6)


async def test_next_years_log_needs_no_change(tmp_path: Path) -> None:
    log = GrowingLog("bus.example/log/2026")
    async with witnessing(tmp_path / "w", knows_yearly(log)) as there:
        for name in ("2026", "2027", "2027.2"):
            await there.cosigned(GrowingLog(f"bus.example/log/{name}", log.key), 0, 3)
        for name in ("27", "2027/x", "2027.0", "2027.02", "latest", ""):
            asked = await there.ask(GrowingLog(f"bus.example/log/{name}", log.key).request(0, 3))
            assert (name, asked.status) == (name, 404)
        assert (await there.ask(GrowingLog("bus.example/log/2028").request(0, 3))).status == 403


async def test_a_log_may_have_several_keys(tmp_path: Path) -> None:
    old, new = GrowingLog(), GrowingLog()
    logs = f'[[logs]]\norigin = "{old.origin}"\nkeys = ["{old.vkey}", "{new.vkey}"]\n'
    async with witnessing(tmp_path / "w", logs) as there:
        await there.cosigned(old, 0, 3)
        await there.cosigned(new, 3, 5)


async def test_signatures_of_unknown_keys_are_neither_believed_nor_shown(tmp_path: Path) -> None:
    log, other = GrowingLog(), GrowingLog()
    async with witnessing(tmp_path / "w", knows(log)) as there:
        both = parse_note(log.note(3)).add(parse_note(other.note(3)).signatures)
        assert (await there.ask(Request(0, (), both.encode()).encode())).status == 200
        shown = await there.seen(log)
        assert shown is not None
        assert [each.key_id for each in shown.signatures] == [
            Signer(log.origin, log.key).verifier.key_id,
            there.verifier.key_id,
        ]


# --- what it refuses


async def test_each_refusal_has_its_status(tmp_path: Path) -> None:
    log = GrowingLog()
    fork = log.fork(2)
    async with witnessing(tmp_path / "w", knows(log)) as there:
        await there.cosigned(log, 0, 5)
        empty = Signer(log.origin, log.key).sign(Checkpoint(log.origin, 0, bytes(32)).text())
        refusals = {
            "malformed": (b"nonsense", 400),
            "no checkpoint": (b"old 5\n\n", 400),
            "goes back": (log.request(6, 5), 400),
            "unknown log": (GrowingLog("bus.example/other").request(5, 6), 404),
            "other key": (GrowingLog().request(5, 6), 403),
            "starts elsewhere": (log.request(4, 6), 409),
            "starts beyond": (log.request(6, 7), 409),
            "no proof": (Request(5, (), log.note(6)).encode(), 422),
            "proof too long": (Request(5, (bytes(32),), log.note(5)).encode(), 422),
            "fork of the same size": (Request(5, (), fork.note(5)).encode(), 422),
            "fork that grew": (fork.request(5, 9), 422),
        }
        for what, (body, status) in refusals.items():
            asked = await there.ask(body)
            assert (what, asked.status) == (what, status)
            is_size = asked.headers["Content-Type"] == "text/x.tlog.size"
            assert (is_size, asked.body == b"5\n") == (status == 409, status == 409)
        assert await there.size(log) == 5
    async with witnessing(tmp_path / "other", knows(log)) as there:
        assert (await there.ask(Request(0, (), empty).encode())).status == 422, "an empty log has one root"


async def test_a_known_keys_failing_signature_is_refused(tmp_path: Path) -> None:
    log = GrowingLog()
    async with witnessing(tmp_path / "w", knows(log)) as there:
        note = parse_note(log.note(3))
        (signed,) = note.signatures
        spoilt = Signature(signed.name, signed.key_id, signed.value[:-1] + bytes([signed.value[-1] ^ 1]))
        # Beside a good one too: then nothing in the note is to be trusted.
        for signatures in ((spoilt,), (signed, spoilt)):
            wrong = Note(note.text, signatures).encode()
            assert (await there.ask(Request(0, (), wrong).encode())).status == 403


async def test_the_first_contradiction_is_kept_as_proof(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = GrowingLog()
    async with witnessing(tmp_path / "w", knows(log)) as there:
        await there.cosigned(log, 0, 5)
        first = Request(5, (), log.fork(2).note(5)).encode()
        await there.ask(first)
        await there.ask(Request(5, (), log.fork(3, "third").note(5)).encode())
        kept = there.settings.file.state / seen_path(log.origin).replace("checkpoint", "refused")
        assert kept.read_bytes() == first
        assert parse_request(kept.read_bytes()).note == log.fork(2).note(5)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "a signed checkpoint does not extend what was cosigned"
    ] * 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: body.replace(b"old 3", b"old 03"),
        lambda body: body.replace(b"old 3", b"old +3"),
        lambda body: body.replace(b"old 3", b"old  3"),
        lambda body: body.replace(b"old 3", b"new 3"),
        lambda body: body.replace(b"old 3\n", b"old 3\r\n"),
        lambda body: body.replace(b"old 3", b"old 9223372036854775808"),
        lambda body: body.replace(b"old 3\n", b"old 3\nAAAA\n"),
        lambda body: body.replace(b"old 3\n", b"old 3\n" + (b"A" * 43 + b"=\n") * 63),
        lambda body: body.replace(b"=\n\n", b"\n\n", 1),
        lambda body: body.replace(b"\n\n", b"\n", 1),
        lambda body: body[:-1],
        lambda body: b"\xff" + body,
        lambda body: b"",
    ],
)
async def test_a_request_is_read_in_one_way(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    log = GrowingLog()
    async with witnessing(tmp_path / "w", knows(log)) as there:
        await there.cosigned(log, 0, 3)
        right = log.request(3, 5)
        assert parse_request(right).encode() == right
        assert spoil(right) != right
        assert (await there.ask(spoil(right))).status == 400
        await there.cosigned(log, 3, 5)


async def test_only_the_two_calls_are_answered_and_sizes_are_bounded(tmp_path: Path) -> None:
    log = GrowingLog()
    async with witnessing(tmp_path / "w", knows(log)) as there:
        shown = f"/{seen_path(log.origin)}"
        for method, path, status in [
            ("GET", "/add-checkpoint", 405),
            ("POST", shown, 405),
            ("GET", shown, 404),
            ("GET", "/", 404),
            ("GET", f"{shown}?x", 404),
            ("GET", "/../state/lock", 404),
        ]:
            assert (await there.ask(b"", path, method)).status == status
        assert (await there.ask(b"old 0\n" * 20_000)).status == 413


# --- at once, and cut off


async def test_of_several_trees_at_once_one_wins(tmp_path: Path) -> None:
    first = GrowingLog("bus.example/log/2026")
    async with witnessing(tmp_path / "w", knows_yearly(first)) as there:
        for number in range(2, 6):
            log = GrowingLog(f"{first.origin}.{number}", first.key)
            await there.cosigned(log, 0, 2)
            forks = [log.fork(2, f"fork {each}") for each in range(6)]
            asked = await asyncio.gather(*(there.ask(fork.request(2, 5)) for fork in forks))
            assert sorted(each.status for each in asked) == [200, *[409] * 5]
            won = forks[[each.status for each in asked].index(200)]
            shown = await there.seen(log)
            assert shown is not None
            assert Checkpoint.parse(shown.text).root == won.root(5)


async def test_an_older_checkpoint_is_never_kept_after_a_newer_one(tmp_path: Path) -> None:
    log = GrowingLog()
    async with witnessing(tmp_path / "w", knows(log)) as there:
        size = 0
        for _ in range(10):
            nearer, farther = await asyncio.gather(
                there.ask(log.request(size, size + 2)), there.ask(log.request(size, size + 5))
            )
            assert sorted([nearer.status, farther.status]) == [200, 409]
            size += 2 if nearer.status == 200 else 5
            assert await there.size(log) == size


class Failing(Files):
    """Fails the next write, before or after it landed."""

    landing: bool | None = None

    def write(self, contents: Mapping[str, bytes], ready: Callable[[], None] = lambda: None) -> None:
        landing, self.landing = self.landing, None
        if landing is not False:
            super().write(contents, ready)
        if landing is not None:
            raise OSError(28, "No space left on device")


@pytest.mark.parametrize("landed", [False, True])
async def test_what_could_not_be_kept_was_never_cosigned(
    tmp_path: Path, landed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    log = GrowingLog()
    fork = log.fork(3)
    async with witnessing(tmp_path / "w", knows(log)) as there:
        await there.cosigned(log, 0, 3)
        files = there.book._files = Failing(there.settings.file.state)
        files.landing = landed
        assert (await there.ask(log.request(3, 5))).status == 503
        assert await there.size(log) == 3, "what is not told may not be shown"
        # Nobody was told of the tree of 5, so another one may be cosigned, and only that one from now on.
        await there.cosigned(fork, 3, 5)
        assert (await there.ask(Request(5, (), log.note(5)).encode())).status == 422
    async with witnessing(tmp_path / "w", knows(log)) as there:
        assert (await there.ask(Request(5, (), log.note(5)).encode())).status == 422
        await there.cosigned(fork, 5, 6)
    told = [record.message for record in caplog.records if "state" in record.message]
    assert len(told) == 2, told


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_kill_around_the_commit_leaves_one_tree_of_each_size(tmp_path: Path, moment: str) -> None:
    log, program = GrowingLog(), (sys.executable, "-m", "tests.support.dying_witness", moment, "2")
    fork = log.fork(3)
    async with witness_process(tmp_path / "w", knows(log), program) as (there, process):
        await there.cosigned(log, 0, 3)
        with pytest.raises(aiohttp.ClientError):
            await there.ask(log.request(3, 5))
        assert await process.wait() == -signal.SIGKILL
    async with witness_process(tmp_path / "w", knows(log)) as (there, _):
        assert await there.size(log) == (3 if moment == "before" else 5)
        # The log, which heard nothing, asks again; whoever forks it comes too late, or first, but not both.
        asked = await there.ask(fork.request(3, 5))
        assert asked.status == (200 if moment == "before" else 409)
        won = fork if moment == "before" else log
        await there.cosigned(won, 5, 5)
        lost = log if moment == "before" else fork
        assert (await there.ask(Request(5, (), lost.note(5)).encode())).status == 422


async def test_a_witness_killed_at_any_time_never_goes_back(tmp_path: Path) -> None:
    log, told, rng = GrowingLog(), 0, random.Random(4)
    for _ in range(6):
        async with witness_process(tmp_path / "w", knows(log)) as (there, process):
            kept = await there.size(log)
            assert told <= kept <= told + 1, "what was told is kept, and at most one more"
            told = kept
            few, dies = rng.randrange(2, 9), None
            with suppress(aiohttp.ClientError):
                while True:
                    await there.cosigned(log, told, told + 1)
                    told += 1
                    few -= 1
                    if few == 0:  # at any time of one of the next few
                        dies = asyncio.get_running_loop().call_later(rng.uniform(0.0, 0.03), process.kill)
            assert dies is not None, "it died by itself"
    assert told >= 6 * 2


async def test_what_is_damaged_missing_or_taken_does_not_start(tmp_path: Path) -> None:
    log = GrowingLog()
    async with witnessing(tmp_path / "w", knows(log)) as there:
        await there.cosigned(log, 0, 3)
        with pytest.raises(StateUnfit, match="another process"):
            _book(there).open()
    state = there.settings.file.state / seen_path(log.origin)
    whole = state.read_bytes()
    state.write_bytes(whole[:40])
    with pytest.raises(StateUnfit, match="damaged"):
        _book(there).open()
    state.write_bytes(whole)
    state.parent.rename(state.parent.with_name("0" * 64))
    with pytest.raises(StateUnfit, match="does not belong there"):
        _book(there).open()
    state.parent.with_name("0" * 64).rename(state.parent)
    async with witnessing(tmp_path / "w", knows(log)) as again:
        assert await again.size(log) == 3


def _book(there: Witnessing) -> Book:
    return Book(there.settings.file.state, there.settings.logs, there.settings.cosigner)


# --- its file and its commands


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("yearly = true", "yearly = maybe", "is not TOML"),
        ("yearly", "jearly", "did you mean 'yearly'"),
        ('name = "', 'name = "a b', "name"),
        ("port = ", 'host = "0.0.0.0"\nport = ', "plain HTTP is only for loopback"),
        ('state = "state"', 'state = "no/such/state"', "there is no folder"),
        ('key = "witness.jwk.json"', 'key = "none"', "No such file"),
        ('"bus.example/log"', '"bus.example/elsewhere"', "is the key of bus.example/log/2026, not of"),
        ("+", "+f", "the id in"),
    ],
)
def test_what_is_wrong_with_its_file_is_told(tmp_path: Path, old: str, new: str, finding: str) -> None:
    write_witness(tmp_path, knows_yearly(GrowingLog()))
    file = tmp_path / "witness.toml"
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(ConfigInvalid, match=re.escape(finding)):
        read_settings(tmp_path)


def test_a_witness_s_key_is_no_log_s(tmp_path: Path) -> None:
    settings = write_witness(tmp_path, knows(GrowingLog()))
    with pytest.raises(ConfigInvalid, match="is the key of a witness"):
        write_witness(tmp_path, f'[[logs]]\norigin = "a"\nkeys = ["{settings.cosigner.vkey}"]\n')


def test_the_commands_tell_the_key_and_what_is_wrong(tmp_path: Path) -> None:
    settings = write_witness(tmp_path, knows(GrowingLog()))
    shown = CliRunner().invoke(app, ["witness", "key", "--config", str(tmp_path)])
    assert (shown.exit_code, shown.output) == (0, f"{settings.cosigner.vkey}\n")
    (tmp_path / "witness.jwk.json").unlink()
    for arguments in (["key"], ["serve"]):
        wrong = CliRunner().invoke(app, ["witness", *arguments, "--config", str(tmp_path)])
        assert wrong.exit_code == 2
        assert "gsb keygen --alg Ed25519 makes one" in wrong.output


async def test_a_witness_told_to_stop_exits_0(tmp_path: Path) -> None:
    log = GrowingLog()
    async with witness_process(tmp_path / "w", knows(log)) as (there, process):
        await there.cosigned(log, 0, 3)
        process.terminate()
        assert await process.wait() == 0
