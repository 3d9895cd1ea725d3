"""The tables of where keys come from when they do not lie in a file: the bus's from an HSM, an agency's from its URL.

Only shapes are told here, of one table at a time. A crash is a defect of this module.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from gsb.forms import File, Table


class HsmTable(Table):
    """A token of PKCS#11 in which private keys of the bus lie, such as a hardware security module; needs the extra
    ``pkcs11``. It signs there, and no private key is ever in the bus's memory."""

    module: File
    """The PKCS#11 library of its vendor, such as ``/usr/lib/softhsm/libsofthsm2.so``."""
    token: str = Field(min_length=1, max_length=32)
    """Label of the token."""
    pin: File
    """File with the PIN of its user, in one line. A refused PIN is not tried again before this file changes."""


def _https(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise ValueError("must be https:// and a host")
    if parts.username is not None or parts.fragment:
        raise ValueError("has a user or a fragment, which is not sent")
    return url


class KeySetTable(Table):
    """Where an agency publishes the public keys with which it signs, beside those of its files: a JWK Set (RFC 7517).

    Every node reads it in the background. What a file says of a key goes before, so a key that is revoked here stays
    revoked; and a key that stands in a file as somebody else's does not count.
    """

    url: Annotated[str, Field(pattern=r"^[!-~]{1,2048}$"), AfterValidator(_https)]
    """Its address. Redirects are not followed; at most 64 KiB and 16 keys are read."""
    ca: File | None = None
    """PEM file with the authorities by which the server is verified instead of the machine's own."""
    networks: list[IPv4Network | IPv6Network] = Field(default=[])
    """Networks in which the server may be beside the public ones, such as ``10.20.0.0/16``."""
    every: float = Field(default=300.0, ge=60, le=3_600)
    """Seconds between two looks where the server does not say so by ``Cache-Control: max-age``, of which 60 to 3600
    count. A signature with a key that is not known yet has it read again at once, at most every 10 seconds."""
    stale: float = Field(default=86_400.0, ge=600, le=604_800)
    """Seconds for which the keys count that were read last, while they cannot be read again. Then none of them does."""
