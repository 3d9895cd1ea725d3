"""Payment orders to a bank and what became of them, as ISO 20022 files over SFTP.

All state lies in folders on the bank's server, so any number of workers share it and none keeps anything. An order is
a file that is named after the exchange and put once. An answer of the bank counts once it is noted with its order,
under the name of its own message, and only then is moved away: after a crash it is read again, and changes nothing
more. A crash anywhere leaves the next call to go on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from gsb.sdk import Adapter, Broken, NoSettings, Refused, Reply, Request
from gsb_adapters.batch import FolderSettings, Outgoing, Remote, connected, noted
from gsb_adapters.batch.iso20022 import Answer, read_answer
from gsb_adapters.batch.remote import TooLarge
from gsb_adapters.treasury.orders import Order, document, message_of, ordered, read_order
from gsb_adapters.treasury.statement import balance_of, note, statement
from gsb_adapters.xml import Unreadable

MOST_NOTES = 1_000
MOST_STATEMENTS = 100_000
MOST_WAITING = 1_000
MESSAGE = re.compile("[0-9a-f]{32}")
SETTLED = 60.0
"""Seconds since it was last written for which the bank may be at work on an answer that cannot be read."""
FOLDERS = ("orders", "sent", "notes", "read", "unmatched")


class TreasurySettings(FolderSettings):
    """``[settings]`` of a system with the adapter ``treasury``."""

    debtor: str = Field(min_length=1, max_length=70)
    """Name of the holder of the accounts, for the bank."""
    accounts: dict[str, tuple[str, ...]]
    """Accounts (IBAN) from which is paid, each with the agencies that may order it."""
    most_files: int = Field(default=50, ge=1, le=1_000)
    """Answers of the bank that one call reads, at most."""


class Treasury(Adapter[TreasurySettings, NoSettings]):
    """``payment-order``, ``payment-status`` and ``account-balance``."""

    Settings = TreasurySettings

    async def check(self) -> None:
        settings = self.context.settings
        async with connected(settings) as remote:
            for folder in (settings.inbox, settings.archive, settings.outbox):
                if not await remote.exists(folder):
                    raise Broken(f"the bank's account has no folder {folder}")

    async def handle(self, request: Request) -> Reply:
        match request.service.split("/")[1]:
            case "payment-status":
                return await self._status(request)
            case "account-balance":
                return await self._balance(request)
            case _:
                return await self._order(request)

    async def find(self, request: Request) -> Reply | None:
        if not request.service.endswith("/payment-order/v1"):
            return None
        async with connected(self.context.settings) as remote:
            return _told(ordered(request)) if await self._outgoing(message_of(request)).was_sent(remote) else None

    # --- orders

    async def _order(self, request: Request) -> Reply:
        settings, order = self.context.settings, ordered(request)
        self._may_use(order.agency, order.account)
        content = await self.context.in_thread(document, order, request.body, settings.debtor)
        async with connected(settings) as remote:
            outgoing = self._outgoing(order.message)
            if not await outgoing.was_sent(remote):
                if not await remote.exists(settings.ours(FOLDERS[-1])):
                    for each in FOLDERS:
                        await remote.folder(settings.ours(each))
                # The bank may answer as soon as it has the file, so ours to hold the answer against is there first.
                await remote.put(settings.ours("orders", outgoing.name), content)
                await outgoing.send(remote, content)
        return _told(order)

    def _outgoing(self, message: str) -> Outgoing:
        settings = self.context.settings
        return Outgoing(settings, f"{message}.xml", settings.ours("sent", message))

    # --- what became of them

    async def _status(self, request: Request) -> Reply:
        async with connected(self.context.settings) as remote:
            order = await self._known(remote, request.body["order"])
            if order is None or order.agency != request.agency:
                raise Refused("not_found")
            await self._take_all(remote)
            folder = self.context.settings.ours("notes", order.message)
            notes = [
                json.loads(await remote.read(f"{folder}/{name}") or b"{}")
                for name in await remote.names(folder, MOST_NOTES)
            ]
            waiting = len(await remote.names(self.context.settings.ours("unmatched"), MOST_WAITING))
        return Reply(statement(order, notes) | {"unassigned": waiting})

    async def _balance(self, request: Request) -> Reply:
        account = request.body["account"]
        self._may_use(request.agency, account)
        async with connected(self.context.settings) as remote:
            await self._take_all(remote)
            folder = self.context.settings.ours("balances", account)
            names = await remote.names(folder, MOST_STATEMENTS)
            content = await remote.read(f"{folder}/{names[-1]}") if names else None
        if content is None:
            raise Refused("no_statement")
        return Reply(json.loads(content))

    def _may_use(self, agency: str, account: str) -> None:
        if agency not in self.context.settings.accounts.get(account, ()):
            raise Refused("account_unknown")

    async def _known(self, remote: Remote, message: str) -> Order | None:
        content = await remote.read(self.context.settings.ours("orders", f"{message}.xml"))
        return None if content is None else await self.context.in_thread(read_order, content)

    async def _take_all(self, remote: Remote) -> None:
        for name in await remote.names(self.context.settings.outbox, self.context.settings.most_files):
            await self._take(remote, name)

    async def _take(self, remote: Remote, name: str) -> None:
        """Note what an answer says with each order or account that it is about, then move it out of the way."""
        settings, fits = self.context.settings, False
        path = f"{settings.outbox}/{name}"
        try:
            if (content := await remote.read(path)) is None:
                return  # another worker was faster
            fits = await self._note(remote, await self.context.in_thread(read_answer, content))
        except (Unreadable, TooLarge):
            if await remote.changed(path) > self.context.clock.now() - SETTLED:
                return
        now = int(self.context.clock.now() * 1_000)
        aside = settings.ours("read" if fits else "unmatched", f"{now}-{name[-100:]}")
        if await remote.move(path, aside) and not fits:
            self.context.log.warning("an answer of the bank does not fit, or not all of it: it waits in unmatched")

    async def _note(self, remote: Remote, answer: Answer) -> bool:
        """Whether everything in it fits a payment of an order, or an account."""
        fits = bool(answer.said or answer.balances)
        for balance in answer.balances:
            stated = balance_of(balance) if balance.account in self.context.settings.accounts else None
            kept = stated and await self._keep(remote, ("balances", balance.account), f"{balance.day}-", answer, stated)
            fits = fits and bool(kept)
        for message in sorted({said.order for said in answer.said}):
            order = await self._known(remote, message) if MESSAGE.fullmatch(message) else None
            if order is None:
                fits = False
                continue
            told = note(order, answer.message, (said for said in answer.said if said.order == message))
            kept = await self._keep(remote, ("notes", message), f"{answer.name}-", answer, told)
            fits = fits and kept and not told["unmatched"]
        return fits

    async def _keep(self, remote: Remote, where: Sequence[str], kind: str, answer: Answer, told: Any) -> bool:
        """False if another message of the same name said something else: the first one stays."""
        folder, content = self.context.settings.ours(*where), json.dumps(told).encode()
        await remote.folder(folder)
        path = f"{folder}/{kind}{hashlib.sha256(answer.message.encode()).hexdigest()[:32]}.json"
        return await noted(remote, path, content) == content


def _told(order: Order) -> Reply:
    told = {"order": order.message, "reference": order.reference, "payments": len(order.payments)}
    return Reply(told | {"total": order.money(order.total)})
