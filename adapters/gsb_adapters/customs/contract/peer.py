"""The customs system's SFTP server, for the contract suite: the folder ``peer`` beside this file, behind fresh keys.

It says its port in its first line, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import asyncssh

FOLDER = Path.cwd() / "peer"
FOLDERS = ("inbox", "archive", "outbox", "bus/batches", "bus/lodged", "bus/acknowledged", "bus/read")


class Folder(asyncssh.SFTPServer):
    """Shows nothing above ``peer``."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes]) -> None:
        super().__init__(channel, chroot=bytes(FOLDER))


async def serve() -> None:
    keys = {name: asyncssh.generate_private_key("ssh-ed25519") for name in ("host_key", "client_key")}
    for name, key in keys.items():
        key.write_private_key(name)
        key.write_public_key(f"{name}.pub")
    for each in FOLDERS:
        (FOLDER / each).mkdir(parents=True, exist_ok=True)
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[keys["host_key"]],
        authorized_client_keys="client_key.pub",
        sftp_factory=Folder,
    )
    async with server:
        print(server.get_port(), flush=True)
        await asyncio.to_thread(sys.stdin.read)


asyncio.run(serve())
