"""A partner's SFTP server, for contract suites: it serves the folder ``peer`` beside a contract, with keys of its own.

The suite starts the contract's program, which calls this. It says its port in its first line, and ends when its
standard input does; the keys lie beside the contract then, for its settings to name.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import asyncssh

ROOT = Path("peer").resolve()


def _server(channel: asyncssh.SSHServerChannel[bytes]) -> asyncssh.SFTPServer:
    """It shows nothing above its folder."""
    return asyncssh.SFTPServer(channel, chroot=bytes(ROOT))


async def _serve(folders: tuple[str, ...]) -> None:
    host, client = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    host.write_public_key("host_key.pub")
    client.write_private_key("client_key")
    client.write_public_key("client_key.pub")
    for name in folders:
        (ROOT / name).mkdir(parents=True, exist_ok=True)
    listening = await asyncssh.listen(
        "127.0.0.1", 0, server_host_keys=[host], authorized_client_keys="client_key.pub", sftp_factory=_server
    )
    async with listening:
        print(listening.get_port(), flush=True)
        await asyncio.to_thread(sys.stdin.buffer.read)


def serve(*folders: str) -> None:
    """Serve until standard input ends; these folders are there."""
    asyncio.run(_serve(folders))
