"""A real token of PKCS#11 for tests: SoftHSM's, in a folder of the test's own, which can be taken away and given back.

    softhsm = SoftHsm(tmp_path)                       # an empty token, with its PIN in a file
    softhsm.into(deployment)                          # the bus's key is made in it, and named in gsb.toml

The library finds its folder by an environment variable, which counts for this process and those that it starts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import orjson
import pytest

from gsb.hsmkeys import make_key
from gsb.jwk import PublicKey
from gsb.sources import HsmTable
from tests.support.deployment import Deployment
from tests.support.needs import needs

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
TOKEN, LABEL = "government", "bus-2026"
PIN = "canary-pin-4711"


class SoftHsm:
    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        needs(MODULE.is_file() and shutil.which("softhsm2-util") is not None, "no SoftHSM; make deps-test installs it")
        self.folder, self._away = root / "tokens", root / "tokens-away"
        self.folder.mkdir()
        self.pin = root / "hsm.pin"
        self.pin.write_text(PIN + "\n")
        self.pin.chmod(0o600)
        settings = root / "softhsm2.conf"
        settings.write_text(f"directories.tokendir = {self.folder}\nobjectstore.backend = file\nlog.level = ERROR\n")
        self.environment = {"SOFTHSM2_CONF": str(settings)}
        monkeypatch.setenv("SOFTHSM2_CONF", str(settings))
        command = ["softhsm2-util", "--init-token", "--free", "--label", TOKEN, "--pin", PIN, "--so-pin", "87654321"]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, **self.environment})

    @property
    def table(self) -> HsmTable:
        return HsmTable(module=MODULE, token=TOKEN, pin=self.pin)

    def make(self, label: str = LABEL, algorithm: str = "ES256") -> PublicKey:
        return make_key(self.table, label, algorithm)

    def into(self, deployment: Deployment, label: str = LABEL, algorithm: str = "ES256") -> PublicKey:
        """Let the deployment's bus sign with a new key of the token, and with nothing else."""
        key = self.make(label, algorithm)
        name = f"keys/{label}.pub.jwk.json"
        (deployment.folder / name).write_bytes(orjson.dumps(key.jwk))
        deployment.gsb["bus"] |= {
            "hsm": {"module": str(MODULE), "token": TOKEN, "pin": str(self.pin)},
            "keys": [{"file": name, "label": label}],
        }
        return key

    def pull(self) -> None:
        """Take the token away from whoever has it."""
        self.folder.rename(self._away)

    def give_back(self) -> None:
        self._away.rename(self.folder)
