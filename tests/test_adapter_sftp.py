"""What adapters share for files over SFTP, on a real OpenSSH: whole files only, pinned keys, and how it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.sftp import SFTPOpUnsupported

from config.systems.running import Copy
from gsb.sdk import Unavailable
from gsb_adapters.batch import FolderSettings, Outgoing, SftpSettings, connected
from gsb_adapters.batch.remote import TooLarge
from gsb_adapters.xml import Unreadable, build, parse, written
from tests.support.breaking import Cutting, Falling
from tests.support.real import real
from tests.support.sockets import listening

CONTENT = b"<a>" + b"x" * 100_000 + b"</a>"


@pytest.fixture
async def sshd(tmp_path: Path) -> AsyncIterator[Copy]:
    async with real("sshd", tmp_path) as system:
        yield system


@pytest.fixture
def account(sshd: Copy) -> Path:
    """The partner's folder, beside the bus."""
    return sshd.place.folder / "bank"


def settings(sshd: Copy, **more: Any) -> FolderSettings:
    where = {"host": sshd.host, "port": sshd.port, "patience": 60}  # a busy machine may stand still
    given = where | {"host_key": "host_key.pub", "client_key": "bank_key"} | more
    return FolderSettings.model_validate(given, context={"folder": sshd.place.folder})


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


# --- files


async def test_a_file_goes_there_and_comes_back(sshd: Copy, account: Path) -> None:
    async with connected(settings(sshd)) as remote:
        assert await remote.put("inbox/a.xml", CONTENT, acts=True)
        assert remote.acted
        assert await remote.read("inbox/a.xml") == CONTENT
        await remote.folder("own/orders")
        await remote.folder("own/orders")
        assert await remote.move("inbox/a.xml", "own/orders/a.xml")
        assert not await remote.exists("inbox/a.xml")
        assert await remote.exists("own/orders/a.xml")
        assert await remote.read("inbox/a.xml") is None
        assert not await remote.move("inbox/a.xml", "own/orders/b.xml")
    assert files(account) == ["a.xml"]
    assert (account / "own/orders/a.xml").read_bytes() == CONTENT


async def test_a_name_that_is_taken_is_told_and_left_as_it_is(sshd: Copy, account: Path) -> None:
    (account / "inbox/a.xml").write_bytes(b"the first")
    async with connected(settings(sshd)) as remote:
        assert not await remote.put("inbox/a.xml", CONTENT, acts=True)
        assert not remote.acted
    assert [(path.name, path.read_bytes()) for path in (account / "inbox").iterdir()] == [("a.xml", b"the first")]


async def test_of_two_who_put_the_same_name_one_is_told_that_it_is_taken(sshd: Copy, account: Path) -> None:
    async def put(number: int) -> bool:
        async with connected(settings(sshd)) as remote:
            return await remote.put("inbox/a.xml", b"%d" % number * 50_000)

    came = await asyncio.gather(*map(put, range(8)))
    assert sum(came) == 1
    (file,) = (account / "inbox").iterdir()
    assert file.read_bytes() == b"%d" % came.index(True) * 50_000


async def test_what_another_sent_and_the_partner_took_meanwhile_is_not_sent_again(sshd: Copy, account: Path) -> None:
    given = settings(sshd)
    file = Outgoing(given, "a.xml", given.ours("sent", "a"))
    async with connected(given) as slow, connected(given) as fast:
        await fast.folder(given.ours("sent"))
        assert not await file.was_sent(slow)
        await file.send(fast, CONTENT)
        (account / "inbox/a.xml").rename(account / "archive/a.xml")
        await file.send(slow, CONTENT)
        assert not slow.acted
        (account / "bus/sent/a").unlink()
        await file.send(slow, CONTENT)
        assert await file.was_sent(slow)
    assert files(account / "inbox") == []


async def test_of_two_who_move_the_same_file_one_is_told_that_it_is_gone(sshd: Copy, account: Path) -> None:
    (account / "outbox/a.xml").write_bytes(CONTENT)

    async def move(number: int) -> bool:
        async with connected(settings(sshd)) as remote:
            return await remote.move("outbox/a.xml", f"archive/{number}.xml")

    came = await asyncio.gather(*map(move, range(8)))
    assert sum(came) == 1
    assert [path.name for path in (account / "archive").iterdir()] == [f"{came.index(True)}.xml"]


async def test_what_is_too_large_is_not_read_and_lists_are_bounded(sshd: Copy, account: Path) -> None:
    for name in ("b.xml", "a.xml", ".c.xml.tmp"):
        (account / "outbox" / name).write_bytes(b"12345")
    (account / "outbox/folder").mkdir()
    (account / "outbox/link.xml").symlink_to("/etc/passwd")
    async with connected(settings(sshd, most_bytes=5)) as remote:
        assert await remote.names("outbox", 10) == ["a.xml", "b.xml"]
        assert len(await remote.names("outbox", 1)) == 1
        assert await remote.names("nowhere", 10) == []
        assert await remote.read("outbox/a.xml") == b"12345"
        (account / "outbox/a.xml").write_bytes(b"123456")
        with pytest.raises(TooLarge):
            await remote.read("outbox/a.xml")


class Plain(asyncssh.SFTPServer):
    """A server that knows no extension of OpenSSH."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes]) -> None:
        super().__init__(channel, chroot=self.root)

    root: bytes

    def posix_rename(self, oldpath: bytes, newpath: bytes) -> None:
        raise SFTPOpUnsupported("not here")

    def fsync(self, file_obj: object) -> None:
        raise SFTPOpUnsupported("not here")


async def test_a_server_without_extensions_will_do(sshd: Copy, account: Path) -> None:
    class Here(Plain):
        root = bytes(account)

    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[str(sshd.place.folder / "host_key")],
        authorized_client_keys=str(sshd.place.folder / "bank_key.pub"),
        sftp_factory=Here,
    )
    async with server, connected(settings(sshd, port=server.get_port())) as remote:
        assert await remote.put("inbox/a.xml", CONTENT)
        assert not await remote.put("inbox/a.xml", b"another")
        assert await remote.move("inbox/a.xml", "archive/a.xml")
    assert files(account) == ["a.xml"]


# --- trouble


async def not_sent(given: SftpSettings) -> Unavailable:
    with pytest.raises(Unavailable) as raised:
        async with connected(given):
            pass
    assert raised.value.sent is False
    return raised.value


async def test_a_server_with_another_host_key_gets_nothing(sshd: Copy) -> None:
    error = await not_sent(settings(sshd, host_key="customs_key.pub"))
    assert "HostKeyNotVerifiable" in error.detail
    # A line for each key, so that a partner may change it.
    keys = [(sshd.place.folder / name).read_text("ascii") for name in ("customs_key.pub", "host_key.pub")]
    (sshd.place.folder / "keys").write_text("\n".join(keys))
    async with connected(settings(sshd, host_key="keys")) as remote:
        assert await remote.exists("inbox")


async def test_a_key_that_the_server_does_not_know_or_that_is_none_was_not_sent(sshd: Copy) -> None:
    folder = sshd.place.folder
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    (folder / "stranger").write_bytes(stranger.export_private_key())
    assert "PermissionDenied" in (await not_sent(settings(sshd, client_key="stranger"))).detail
    (folder / "stranger").write_text("no key")
    assert "KeyImportError" in (await not_sent(settings(sshd, client_key="stranger"))).detail
    (folder / "stranger").unlink()
    given = settings(sshd, client_key="bank_key")
    (folder / "bank_key").unlink()
    assert "FileNotFoundError" in (await not_sent(given)).detail


async def test_each_key_opens_its_own_folder(sshd: Copy, account: Path) -> None:
    async with connected(settings(sshd, client_key="customs_key")) as remote:
        await remote.put("inbox/a.csv", b"1;2")
    assert (sshd.place.folder / "customs/inbox/a.csv").read_bytes() == b"1;2"
    assert list((account / "inbox").iterdir()) == []


async def test_nothing_of_the_machine_says_where_and_how(
    sshd: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text("Host *\n  Port 1\n  ProxyCommand false\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "nothing"))
    async with connected(settings(sshd)) as remote:
        assert await remote.exists("inbox")


async def test_a_server_that_is_down_silent_or_none_was_not_sent(sshd: Copy) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        await asyncio.Event().wait()

    async with listening(silent) as listener:
        assert "TimeoutError" in (await not_sent(settings(sshd, port=listener.port, patience=0.2))).detail
    await not_sent(settings(sshd, port=listener.port))
    await sshd.stop()
    await not_sent(settings(sshd))
    await sshd.start()
    async with connected(settings(sshd)) as remote:
        assert await remote.exists("inbox")


async def test_a_folder_that_is_not_there_or_closed_was_not_sent(sshd: Copy) -> None:
    with pytest.raises(Unavailable) as raised:
        async with connected(settings(sshd)) as remote:
            await remote.put("nowhere/a.xml", CONTENT, acts=True)
    assert raised.value.sent is False
    assert "SFTPNoSuchFile" in raised.value.detail


@pytest.mark.slow
async def test_a_file_is_there_whole_or_not_at_all_wherever_the_connection_breaks(sshd: Copy, account: Path) -> None:
    content = CONTENT[:2_000]
    told: list[str] = []
    for most in range(400, 12_000, 250):
        came, path = "put", account / f"inbox/{most}.xml"
        async with listening(Cutting(sshd.port, most)) as listener:
            try:
                async with connected(settings(sshd, port=listener.port)) as remote:
                    await remote.put(f"inbox/{most}.xml", content, acts=True)
            except Unavailable as error:
                came = f"sent={error.sent}"
        told.append(came)
        assert not path.exists() or path.read_bytes() == content
        if came == "put":
            assert path.exists()
        if came == "sent=False":
            assert not path.exists()
        if told[-3:] == ["put"] * 3:
            break
    assert {"put", "sent=False"} <= set(told)


@pytest.mark.slow
async def test_a_call_is_given_up_wherever_the_server_falls_silent(sshd: Copy, account: Path) -> None:
    (account / "outbox/a.xml").write_bytes(CONTENT[:1_000])

    async def call(port: int, number: int) -> None:
        async with connected(settings(sshd, port=port)) as remote:
            await remote.put(f"inbox/{number}.xml", CONTENT[:1_000])
            await remote.names("outbox", 1)
            await remote.read("outbox/a.xml")
            await remote.move(f"inbox/{number}.xml", f"archive/{number}.xml")

    ended = 0
    for most in range(1_200, 12_000, 250):
        falling = Falling(sshd.port, most)
        async with listening(falling) as listener:
            running = asyncio.ensure_future(call(listener.port, most))
            silent = asyncio.ensure_future(falling.silent.wait())
            await asyncio.wait({running, silent}, return_when=asyncio.FIRST_COMPLETED)
            silent.cancel()
            running.cancel()
            async with asyncio.timeout(90):
                await asyncio.gather(running, silent, return_exceptions=True)
        ended += not running.cancelled()
        if ended == 3:
            break
    assert ended == 3
    assert asyncio.all_tasks() == {asyncio.current_task()}


# --- XML


@pytest.mark.parametrize(
    "content",
    [
        b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        b'<?xml version="1.0"?><!DOCTYPE a><a/>',
        '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a><a/>'.encode("utf-16"),
    ],
)
def test_a_document_type_is_refused(content: bytes) -> None:
    with pytest.raises(Unreadable, match="document type"):
        parse(content)


@pytest.mark.parametrize(
    "content", [b"", b"<a>", b"<a/><b/>", b"<a>&x;</a>", b"\xff", b'<?xml version="1.0" encoding="x"?><a/>']
)
def test_what_is_no_xml_is_unreadable(content: bytes) -> None:
    with pytest.raises(Unreadable):
        parse(content)


def test_what_is_written_is_read_again() -> None:
    told = build("b", "é & <c>", Ccy="XOF")
    root = parse(written(build("a", [told, build("b")], xmlns="urn:a")))
    assert root.tag == "{urn:a}a"
    assert [(each.tag, each.text, each.attrib) for each in root] == [
        ("{urn:a}b", "é & <c>", {"Ccy": "XOF"}),
        ("{urn:a}b", None, {}),
    ]
    deep = parse(b"<a>" * 50_000 + b"</a>" * 50_000)
    assert sum(1 for _ in deep.iter()) == 50_000
