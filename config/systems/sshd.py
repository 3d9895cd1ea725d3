"""OpenSSH's sshd as it stands with partners: accounts that can do nothing but exchange files over SFTP, by key.

It runs without root, for the one user who starts it, and so does everything in it; as root it is root's, since sshd
lets nobody in as somebody whom it cannot become. Keys are made anew with each copy. A crash loses no file that was
put in place; sshd's children end with their connections.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
from pathlib import Path

import asyncssh

from config.systems.base import HOST, Command, NotInstalled, NotStarted, Place, System, run

SSHD = Path("/usr/sbin/sshd")
SEPARATE = Path("/run/sshd")
"""Where sshd locks its unprivileged half in, when it is root; a start script makes it, and there is none here."""
ACCOUNTS = ("bank", "customs")
FOLDERS = ("inbox", "archive", "outbox")
"""What comes in, what of it was taken, and what goes out, as the partner sees it."""

CONFIGURATION = """\
Port {port}
ListenAddress {host}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
AuthenticationMethods publickey
PermitRootLogin prohibit-password
AllowUsers {user}
# A checkout may lie in a folder of anybody's.
StrictModes no
UsePAM no
DisableForwarding yes
PermitTTY no
PermitUserRC no
MaxStartups 100
MaxSessions 4
Subsystem sftp internal-sftp
"""


class Sshd(System):
    """One server with an account for each partner: a key of its own that opens a folder of its own."""

    name = "sshd"
    title = "OpenSSH, SFTP"
    port = 2222

    def missing(self) -> str | None:
        if not SSHD.exists() or shutil.which("ssh-keygen") is None:
            return f"{self.title} is not installed: make deps-test installs it"
        return None if _user() else f"{self.title}: this user has no name in the machine's list, which sshd asks for"

    def install(self) -> None:
        """It is the machine's own: with apt, where this process may."""
        if (lack := self.missing()) is None:
            return
        if os.getuid() != 0 or shutil.which("apt-get") is None:
            raise NotInstalled(f"{lack} as root, or install Debian's openssh-server")
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        run(self, ["apt-get", "update", "-qq"], quiet)
        run(self, ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "openssh-server"], quiet)

    def lay(self, place: Place) -> None:
        folder = place.folder
        keys = []
        for name in ("host_key", *(f"{account}_key" for account in ACCOUNTS)):
            run(self, ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", folder / name])
        for account in ACCOUNTS:
            for each in FOLDERS:
                (folder / account / each).mkdir(parents=True)
            public = (folder / f"{account}_key.pub").read_text("ascii").strip()
            keys.append(f'restrict,command="internal-sftp -u 0077 -d {folder / account}" {public}\n')
        (folder / "authorized_keys").write_text("".join(keys), "utf-8")
        text = CONFIGURATION.format(port=place.port, host=HOST, folder=folder, user=_user())
        (folder / "sshd_config").write_text(text, "utf-8")

    def command(self, place: Place) -> Command:
        if os.getuid() == 0:
            SEPARATE.mkdir(mode=0o755, exist_ok=True)
        return [SSHD, "-D", "-e", "-f", place.folder / "sshd_config"]

    async def ready(self, place: Place) -> bool:
        try:
            async with asyncio.timeout(5):
                return (await self._seen(place)) is not None
        except (OSError, asyncssh.Error, TimeoutError):
            return False

    async def check(self, place: Place) -> str:
        if (seen := await self._seen(place)) != sorted(FOLDERS):
            raise NotStarted(f"{self.title} shows the bank the folders {seen}")
        return f"the bank's account sees {', '.join(FOLDERS)}"

    async def _seen(self, place: Place) -> list[str]:
        """What stands in the bank's folder, as its key sees it."""
        pinned = asyncssh.read_public_key(place.folder / "host_key.pub")
        async with (
            asyncssh.connect(
                HOST,
                place.port,
                known_hosts=([pinned], [], []),
                client_keys=[str(place.folder / "bank_key")],
                agent_path=None,
                config=None,
            ) as connection,
            connection.start_sftp_client() as client,
        ):
            return sorted(name for name in map(str, await client.listdir()) if not name.startswith("."))


def _user() -> str | None:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return None


SYSTEM = Sshd()
