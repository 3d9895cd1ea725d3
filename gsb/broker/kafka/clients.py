"""How a node reaches Kafka: aiokafka's clients, with addresses, TLS and password from the table of ``gsb.toml``.

The client's own log is silenced, since it says the same many times a second; ``gsb.trouble`` tells once what matters.
Secrets are read when the node starts and stay in memory. A crash is a defect of this module.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from gsb.backends import KafkaTable, KafkaTls
from gsb.broker.contract import BrokerUnfit

TIMEOUT = 15_000
"""Milliseconds for one request; more than the 10 s for which a group waits for its members."""
METADATA_AGE = 10_000
"""Milliseconds after which leaders, brokers and partitions are looked up anew, so that new ones are noticed."""
GONE = (KafkaError, OSError, TimeoutError)
"""What the client raises when Kafka, or a part of it, is not there."""
LAST = 5.0
"""Seconds for the last words of a client: to be acknowledged, to commit, to leave a group."""
LOST = 20.0
"""Seconds without an answer of the client itself after which another takes its place; of three brokers one may hang."""
PULSE = 2.0
"""Seconds between two looks whether Kafka is there."""
REST = 1.0
"""Seconds before trying again."""


async def forever(attempt: Callable[[], Awaitable[None]], tell: Callable[[Exception], None]) -> None:
    """Until cancelled: whatever the client raises is told, and after a rest there is another attempt."""
    while True:
        try:
            await attempt()
        except Exception as error:
            # The place where the bus survives whatever is wrong with Kafka, with what it sends, or with its client.
            tell(error)
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise asyncio.CancelledError  # in whose place an attempt that was broken off may raise something else
        await asyncio.sleep(REST)


class Producer(AIOKafkaProducer):  # type: ignore[misc]
    """One that ends: an idempotent one otherwise never gives up what it has to send, not even to stop."""

    @property
    def lost(self) -> bool:
        """Whether its own task that sends has ended, which it tells nobody."""
        return bool(self._sender.sender_task.done())

    async def answers(self) -> bool:
        """Whether Kafka does. Raises TimeoutError when the client itself does not, as a consumer that is lost."""
        async with asyncio.timeout(LOST):
            return bool(await self.client.force_metadata_update())

    async def end(self) -> None:
        """Send what is under way, within ``LAST`` seconds, or give it up; and close."""
        try:
            async with asyncio.timeout(LAST):
                await self.flush()
        except TimeoutError:
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LAST):
                        await self._sender.close()
            finally:
                await self.client.close()
                self._closed = True
        else:
            await self.stop()


class Consumer(AIOKafkaConsumer):  # type: ignore[misc]
    """One that ends where Kafka is not there to be left properly."""

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[asyncio.Timeout]:
        """What is done in here, starting included, is given up when this is of no more use, and another has to take its
        place. Raises TimeoutError then; what swallows that it was given up can still see that the watch has expired."""
        async with asyncio.timeout(None) as scope:
            watching = asyncio.create_task(self._until_lost(scope))
            try:
                yield scope
            finally:
                watching.cancel()

    async def _until_lost(self, scope: asyncio.Timeout) -> None:
        """The client does not notice when one of its own tasks ends, and whatever waits for that one waits for ever: a
        start, a commit. On uvloop one does when a connection is lost just before it is written to, which raises
        RuntimeError there."""
        with suppress(TimeoutError):
            while self._fetcher is None or not self._fetcher.error_future.done():
                if self._client.cluster.brokers():  # Kafka was found, and there is somebody to be asked
                    async with asyncio.timeout(LOST):
                        await self._client.force_metadata_update()
                await asyncio.sleep(METADATA_AGE / 1000)
        scope.reschedule(asyncio.get_running_loop().time())

    async def end(self) -> None:
        """Leave the group and close; after ``LAST`` seconds without waiting for anybody."""
        ending = asyncio.create_task(self.stop())
        await asyncio.wait([ending], timeout=LAST)
        if not ending.done():
            # What it waits for may have swallowed that it was cancelled, or be a Kafka that is not there.
            ending.cancel()
            await asyncio.wait([ending], timeout=LAST)
        if ending.done() and not ending.cancelled() and ending.exception() is None:
            return
        if self._fetcher is not None:
            await asyncio.wait([asyncio.create_task(self._fetcher.close())], timeout=LAST)
        await self._client.close()


def access(table: KafkaTable) -> dict[str, Any]:
    """Arguments that every client of aiokafka takes. Raises BrokerUnfit for files that cannot be used."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    found: dict[str, Any] = {
        "bootstrap_servers": table.brokers,
        "client_id": table.topic_prefix,
        "request_timeout_ms": TIMEOUT,
        "metadata_max_age_ms": METADATA_AGE,
    }
    tls = isinstance(table.tls, KafkaTls)
    if isinstance(table.tls, KafkaTls):
        found["ssl_context"] = _context(table.tls)
    if table.sasl is not None:
        try:
            password = table.sasl.password.read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise BrokerUnfit(f"cannot read {table.sasl.password}: {error}") from error
        found["sasl_mechanism"] = table.sasl.mechanism
        found["sasl_plain_username"] = table.sasl.user
        found["sasl_plain_password"] = password
    found["security_protocol"] = (
        f"SASL_{'SSL' if tls else 'PLAINTEXT'}" if table.sasl else "SSL" if tls else "PLAINTEXT"
    )
    return found


def _context(tls: KafkaTls) -> ssl.SSLContext:
    """TLS 1.2 or later, the broker's name checked."""
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.certificate is not None:
            # A key with a passphrase would make OpenSSL ask for it on the terminal.
            context.load_cert_chain(tls.certificate, tls.key, password=_no_passphrase)
    except (OSError, ValueError) as error:
        files = ", ".join(str(each) for each in (tls.ca, tls.certificate, tls.key) if each is not None)
        raise BrokerUnfit(f"TLS to Kafka cannot be set up from {files}: {error}") from error
    return context


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase, which nobody is there to type")
