"""Starts a PostgreSQL on the data of one Kinto, waits until it answers, and becomes that Kinto.

    start.py DATA SOCKET PROGRAMS COMMAND...

So there is one process to be stopped or killed. PostgreSQL is its child and gets SIGINT from the kernel when it ends,
however it ends: it stops in order then, and leaves no shared memory behind. A crash loses nothing that was committed;
the next start waits for what is still leaving, and recovers.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

WITHIN = 60.0
PAUSE = 0.05


def postgres(data: Path, socket: str, programs: Path) -> None:
    """Returns when it answers. Ends this process if it does not."""
    reached = ("-k", socket, "-c", "listen_addresses=")
    command = ["setpriv", "--pdeathsig", "INT", str(programs / "postgres"), "-D", str(data), *reached]
    asked = [str(programs / "pg_isready"), "-q", "-h", socket]
    until = time.monotonic() + WITHIN
    server = None
    while time.monotonic() < until:
        # One that was killed a moment ago may still be leaving, and then a new one ends at once.
        if server is None or server.poll() is not None:
            # In a session of its own: whoever kills the group of this process leaves it the time to end in order.
            server = subprocess.Popen(command, start_new_session=True)
        if subprocess.run(asked, check=False).returncode == 0 and server.poll() is None:
            return
        time.sleep(PAUSE)
    sys.exit("PostgreSQL does not answer")


if __name__ == "__main__":
    postgres(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
    os.execv(sys.argv[4], sys.argv[4:])
