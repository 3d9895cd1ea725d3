"""Canaille: a national digital identity in OpenID Connect, with a few citizens and two clients, the bus and a portal.

Its data are a copy of a SQLite file that is built once; its settings, with its signing keys, are written for each copy,
since its name is the address where it listens. A crash loses what it had not committed, a session of a citizen at most.
"""

from __future__ import annotations

import base64
import json
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from config.systems.base import HOST, Command, NotStarted, Place, System, run
from config.systems.openfisca import answers

CLIENT, SECRET = "gsb", "gsb-secret-123"
PORTAL, PORTAL_SECRET = "portal", "portal-secret-456"
"""A client of somebody else: what is issued to it is not meant for the bus."""
CALLBACK = "http://127.0.0.1:9999/cb"
"""Where citizens come back to after they logged in. Nothing listens there: who plays the browser stops before it."""
WORD = "citizenpw"
"""Every citizen's password."""
CITIZENS = {
    "amina": ("Amina", "Diallo"),
    "moussa": ("Moussa", "Keïta"),
    "fatou": ("Fatou", "N'Diaye"),
}
"""User name to given and family name."""
GRANTS = ("authorization_code", "password", "client_credentials")
SCOPES = ("openid", "profile", "email")
SETTINGS = """\
SECRET_KEY = "{secret}"
SERVER_NAME = "{host}:{port}"
PREFERRED_URL_SCHEME = "http"

[CANAILLE]
NAME = "National Digital ID"

[CANAILLE_SQL]
DATABASE_URI = "sqlite:///{database}"

[CANAILLE_OIDC]
ACTIVE_JWKS = [{key}]
"""


class Canaille(System):
    """The issuer. Its tokens are signed RS512, and it advertises that it may sign with nothing at all."""

    name = "canaille"
    title = "Canaille, digital identity"
    port = 5055

    def build(self, folder: Path) -> None:
        """Two keys, of which the second is for whoever tries how keys are replaced; and the database."""
        for key in ("key.json", "next-key.json"):
            (folder / key).write_text(run(self, [self.program("canaille"), "jwk", "create", "rsa"]).splitlines()[-1])
        self._settle(folder, folder / "key.json", self.port)
        self._said(folder, "install")
        for user, (given, family) in CITIZENS.items():
            names = ("--given-name", given, "--family-name", family, "--formatted-name", f"{given} {family}")
            entry = ("--user-name", user, "--password", WORD, "--emails", f"{user}@example.org")
            self._said(folder, "create", "user", *entry, *names)
        for client, secret in ((CLIENT, SECRET), (PORTAL, PORTAL_SECRET)):
            entry = ("--client-id", client, "--client-secret", secret, "--client-name", client)
            grants = [each for kind in GRANTS for each in ("--grant-types", kind)]
            scopes = [each for scope in SCOPES for each in ("--scope", scope)]
            how = ("--response-types", "code", "--token-endpoint-auth-method", "client_secret_basic")
            self._said(folder, "create", "client", *entry, *grants, *scopes, *how, "--redirect-uris", CALLBACK)
            # Without an audience, a client is told of no token that it holds.
            self._said(folder, "set", "client", client, "--audience", client)

    def _said(self, folder: Path, *words: str) -> str:
        return run(self, [self.program("canaille"), *words], {"CANAILLE_CONFIG": str(folder / "canaille.toml")})

    def _settle(self, folder: Path, key: Path, port: int) -> None:
        members = json.loads(key.read_text("utf-8"))
        table = "{" + ", ".join(f"{name} = {json.dumps(value)}" for name, value in members.items()) + "}"
        database = folder / "identities.sqlite"
        text = SETTINGS.format(secret=secrets.token_hex(16), host=HOST, port=port, database=database, key=table)
        (folder / "canaille.toml").write_text(text, "utf-8")

    def lay(self, place: Place) -> None:
        shutil.copy(self.golden / "identities.sqlite", place.folder)
        (place.folder / "client-secret.txt").write_text(SECRET, "utf-8")
        self._settle(place.folder, self.golden / "key.json", place.port)

    def replace_key(self, place: Place) -> None:
        """Have it sign with its other key from its next start."""
        self._settle(place.folder, self.golden / "next-key.json", place.port)

    def command(self, place: Place) -> Command:
        return [self.program("canaille"), "run", "--bind", f"{HOST}:{place.port}"]

    def environment(self, place: Place) -> Mapping[str, str]:
        return {"CANAILLE_CONFIG": str(place.folder / "canaille.toml")}

    async def ready(self, place: Place) -> bool:
        return await answers(f"{place.url}/.well-known/openid-configuration")

    async def check(self, place: Place) -> str:
        headers = {"Authorization": f"Basic {base64.b64encode(f'{CLIENT}:{SECRET}'.encode()).decode()}"}
        asked = {"grant_type": "password", "username": "amina", "password": WORD, "scope": "openid"}
        async with aiohttp.ClientSession(headers=headers) as session:
            async with session.post(f"{place.url}/oauth/token", data=asked) as answer:
                token = (await answer.json()).get("access_token")
            async with session.post(f"{place.url}/oauth/introspect", data={"token": str(token)}) as answer:
                if not (await answer.json()).get("active"):
                    raise NotStarted(f"{self.title} does not know the token that it has just issued")
        return "a citizen's token was issued and is active"


SYSTEM = Canaille()
