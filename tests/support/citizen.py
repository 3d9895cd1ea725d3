"""A citizen with a browser, played headless: logs in at a real Canaille, consents, and brings an agency the tokens.

It reads pages only for the hidden fields of their forms. It keeps nothing, and a crash leaves a session at the issuer.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
from yarl import URL

from config.systems.canaille import CALLBACK, CLIENT, PORTAL, PORTAL_SECRET, SECRET, WORD

ISSUED: dict[tuple[str, ...], int] = {}
"""The last second in which a token can have been issued, by issuer, client and citizen."""
SECRETS = {CLIENT: SECRET, PORTAL: PORTAL_SECRET}
SCOPE = "openid profile email"
HIDDEN = re.compile(r'<input[^>]*name="(csrf_token)"[^>]*value="([^"]+)"')


@dataclass(frozen=True, slots=True)
class Tokens:
    """What came of one log-in."""

    access: str
    id: str
    nonce: str


async def log_in(issuer: str, user: str, *, client: str = CLIENT, scope: str = SCOPE) -> Tokens:
    """The authorization code flow with PKCE (RFC 7636), from the first page to the tokens."""
    await _another_second(issuer, client, user)
    verifier, nonce, state = (secrets.token_urlsafe(48) for _ in range(3))
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    asked = {"response_type": "code", "client_id": client, "redirect_uri": CALLBACK, "scope": scope, "state": state}
    asked |= {"nonce": nonce, "code_challenge": challenge, "code_challenge_method": "S256"}
    # The issuer is an address and no name, to which a browser's jar would not return cookies.
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        page = await _get(browser, f"{issuer}/oauth/authorize?{urlencode(asked)}")
        page = await _fill(browser, page, {"login": user})
        page = await _fill(browser, page, {"password": WORD})
        if not page.url.startswith(CALLBACK):
            page = await _fill(browser, page, {"answer": "accept"})
    back = {name: value for name, (value,) in parse_qs(urlsplit(page.url).query).items()}
    assert back["state"] == state, "the answer is of another log-in"
    assert back["iss"] == issuer, "the answer is another issuer's (RFC 9207)"
    form = {"grant_type": "authorization_code", "code": back["code"], "redirect_uri": CALLBACK}
    told = await post(issuer, "/oauth/token", form | {"code_verifier": verifier}, client)
    ISSUED[issuer, client, user] = int(time.time())
    return Tokens(told["access_token"], told["id_token"], nonce)


async def access_token(issuer: str, user: str, *, client: str = CLIENT, scope: str = SCOPE) -> str:
    """The short way, by the citizen's password."""
    await _another_second(issuer, client, user)
    form = {"grant_type": "password", "username": user, "password": WORD, "scope": scope}
    told = await post(issuer, "/oauth/token", form, client)
    ISSUED[issuer, client, user] = int(time.time())
    return str(told["access_token"])


async def _another_second(*whose: str) -> None:
    """Two tokens of one citizen and one second would be the same text, which Canaille answers with an error."""
    if int(time.time()) == ISSUED.get(whose):
        await asyncio.sleep(1.01 - time.time() % 1)


async def revoke(issuer: str, token: str, client: str = CLIENT) -> None:
    """RFC 7009."""
    await post(issuer, "/oauth/revoke", {"token": token}, client)


async def post(issuer: str, path: str, form: dict[str, str], client: str) -> Any:
    """What the issuer answers a client."""
    pair = base64.b64encode(f"{client}:{SECRETS[client]}".encode()).decode()
    headers = {"Authorization": f"Basic {pair}"}
    async with aiohttp.ClientSession(headers=headers) as session, session.post(issuer + path, data=form) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


@dataclass(frozen=True, slots=True)
class Page:
    """Where the browser is, and what it shows. At the callback nobody answers, so nothing is shown."""

    url: str
    text: str = ""


async def _get(browser: aiohttp.ClientSession, url: str) -> Page:
    while not url.startswith(CALLBACK):
        async with browser.get(url, allow_redirects=False) as answer:
            if answer.status == 200:
                return Page(url, await answer.text())
            url = str(answer.url.join(URL(answer.headers["Location"])))
    return Page(url)


async def _fill(browser: aiohttp.ClientSession, page: Page, fields: dict[str, str]) -> Page:
    async with browser.post(page.url, data=dict(HIDDEN.findall(page.text)) | fields, allow_redirects=False) as answer:
        assert answer.status == 302, f"{page.url} does not take {sorted(fields)}"
        return await _get(browser, str(answer.url.join(URL(answer.headers["Location"]))))
