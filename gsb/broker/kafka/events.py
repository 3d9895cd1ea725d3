"""What a bus says over Kafka: CloudEvents 1.0 in binary mode, ids and nothing else.

Binary mode of the Kafka protocol binding puts each attribute into a header ``ce_...``: there is no body to encode, to
parse or to keep personal data in, and Kafka's own tools show and filter the attributes. Whatever does not read as one
of these events is nobody's, and is passed over; a crash is a defect of this module.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from itertools import count
from typing import NamedTuple

from gsb.telemetry import TRACEPARENT, trace

Headers = list[tuple[str, bytes]]
DISPATCH = b"gsb.dispatch.v1"
WAKE = b"gsb.wake.v1"
_ID = re.compile(rb"[A-Za-z0-9-]{1,64}")
"""Ids of exchanges and agencies, in the widest sense: what is no known one is found out by the store."""


class Event(NamedTuple):
    """What was said. ``agency`` is empty in a wake; ``trace`` is the traceparent, if it names one."""

    exchange: str
    agency: str
    trace: str | None = None


class Speaker:
    """What one process says; ``source`` and ``id`` together are unique (CloudEvents 1.0, Required Attributes)."""

    def __init__(self, prefix: str) -> None:
        self._source = f"/{prefix}/{uuid.uuid4().hex}".encode()
        self._numbers = count(1)

    def dispatch(self, exchange: str, agency: str) -> Headers:
        """That some worker is to perform the exchange; the topic says of which system."""
        return [*self._common(DISPATCH, exchange), ("ce_agency", agency.encode())]

    def wake(self, exchange: str) -> Headers:
        """That the exchange has changed."""
        return self._common(WAKE, exchange)

    def said(self, headers: Iterable[tuple[str, bytes]]) -> bool:
        """Whether this process said it itself."""
        return ("ce_source", self._source) in headers

    def _common(self, kind: bytes, exchange: str) -> Headers:
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", b"%d" % next(self._numbers)),
            ("ce_source", self._source),
            ("ce_type", kind),
            ("ce_subject", exchange.encode()),
        ]
        if (parent := trace.get()) is not None:
            headers.append(("ce_traceparent", parent.encode()))  # CloudEvents' extension for distributed tracing
        return headers


def read(headers: Iterable[tuple[str, bytes | None]], kind: bytes) -> Event | None:
    """The event of that kind in a message's headers; None when they are something else."""
    said = dict(headers)
    if said.get("ce_specversion") != b"1.0" or said.get("ce_type") != kind:
        return None
    exchange, agency = said.get("ce_subject") or b"", said.get("ce_agency") or b""
    if not _ID.fullmatch(exchange) or (kind == DISPATCH and not _ID.fullmatch(agency)):
        return None
    return Event(exchange.decode(), agency.decode() if kind == DISPATCH else "", _trace(said.get("ce_traceparent")))


def _trace(header: bytes | None) -> str | None:
    said = (header or b"").decode("ascii", "replace")
    return said if TRACEPARENT.fullmatch(said) else None
