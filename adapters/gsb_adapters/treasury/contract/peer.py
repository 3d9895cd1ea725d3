"""The bank's SFTP server, for the contract suite: it serves the folder ``peer`` beside this file, with keys of its own.

The suite starts it, reads the port from its first line, and ends it by closing its standard input.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import asyncssh

ROOT = Path("peer").resolve()


def server(channel: asyncssh.SSHServerChannel[bytes]) -> asyncssh.SFTPServer:
    return asyncssh.SFTPServer(channel, chroot=bytes(ROOT))


async def main() -> None:
    host, client = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    host.write_public_key("host_key.pub")
    client.write_private_key("client_key")
    client.write_public_key("client_key.pub")
    for name in ("inbox", "archive", "outbox", "bus/sent", "bus/notes", "bus/read", "bus/unmatched"):
        (ROOT / name).mkdir(parents=True, exist_ok=True)
    listening = await asyncssh.listen(
        "127.0.0.1", 0, server_host_keys=[host], authorized_client_keys="client_key.pub", sftp_factory=server
    )
    print(listening.get_port(), flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)


asyncio.run(main())
