"""A real digital identity slowed, cut off, killed, stopped and back, while agencies ask about its citizens' tokens."""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path

import pytest

from config.systems.canaille import CITIZENS
from tests.support.citizen import log_in, revoke
from tests.support.real import real
from tests.support.survival import ENOUGH, Ask, survives


@pytest.mark.slow
async def test_it_survives_its_issuer(tmp_path: Path) -> None:
    async with real("canaille", tmp_path) as issuer:
        tokens = {name: await log_in(issuer.url, name) for name in CITIZENS}
        await revoke(issuer.url, tokens["fatou"].access)
        asks = []
        for each in tokens.values():
            tied = {"access_token": each.access, "id_token": each.id, "nonce": each.nonce}
            asks.append(Ask("digital-id/token/v1", {"token": each.access, "scopes": ["openid"]}))
            asks.append(Ask("digital-id/verify/v1", tied | {"claims": {"given_name": "Amina"}}))
        # Its name, in tokens and in its document, stays what it is; it is reached through the proxy.
        told = await survives(
            tmp_path, issuer, "digital-id", islice(cycle(asks), ENOUGH), settings={"issuer": issuer.url}
        )
    # One in six asks to verify a token that was revoked, before, meanwhile and afterwards.
    assert told.states == {"done": ENOUGH - len(range(5, ENOUGH, 6)), "refused": len(range(5, ENOUGH, 6))}
