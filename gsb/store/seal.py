"""Seals what must not lie in a database in the clear: AES-256-GCM with a key of its own for each record.

Pure but for the random bytes and the key file. A record's key is HMAC-SHA256(master, 16 random bytes), so it is used
once, and the nonce can be fixed by the kind of record (NIST SP 800-38D, section 8.2: no pair of key and nonce is used
twice). The kind and whose record it is are authenticated: one that is moved to another place does not open.
It keeps no state, so a crash means nothing to it. Losing the key file means losing every sealed record.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gsb.model import Decision, Record
from gsb.store.contract import Business, CursorUnfit

VERSION = b"\x01"
KEY_SIZE = 32
_SALT = 16
_HEAD = len(VERSION) + _SALT
_CLEAR = 128
"""Characters of a business key that may lie in an index as it is."""
_CURSOR = re.compile("[A-Za-z0-9_-]{32}")
_POSITION = struct.Struct(">dQ")
_STORE = b"store"

KEYCHECK, RECORD, REPLY, SECRET = (number.to_bytes(12, "big") for number in (1, 2, 3, 4))
"""The kinds of what is sealed. Each is the nonce itself, so it never changes and no two are alike."""


class KeyFileUnfit(ValueError):
    """The file of the store's key cannot be used; the text says why and never shows the key."""


class Unreadable(ValueError):
    """A sealed record does not open: damaged, sealed with another key, or moved from another place."""


def new_key() -> str:
    """The one line of a new key file: 32 random bytes in base64url without padding."""
    return base64.urlsafe_b64encode(os.urandom(KEY_SIZE)).rstrip(b"=").decode()


def read_key(path: Path) -> bytes:
    """The 32 bytes in a key file. Raises KeyFileUnfit when it cannot be read or is not such a file."""
    try:
        text = path.read_bytes().strip()
    except OSError as error:
        raise KeyFileUnfit(f"{path}: the store's key cannot be read: {error.strerror}") from None
    try:
        key = base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise KeyFileUnfit(f"{path}: the store's key must be one line of base64url") from None
    if len(key) != KEY_SIZE:
        raise KeyFileUnfit(f"{path}: the store's key must be {KEY_SIZE} bytes in base64url, not {len(key)}")
    return key


def pack(record: Record) -> bytes:
    """A record as the plain text that is sealed."""
    decision = record.decision
    head = {
        "key_id": record.key_id,
        "agreement": decision.agreement,
        "digest": decision.agreement_digest,
        "purpose": decision.purpose,
        "fields": decision.fields,
        "sub": record.sub,
        "case": record.case,
        "trace": record.traceparent,
    }
    return orjson.dumps(head) + b"\n" + record.body


def unpack(packed: bytes) -> Record:
    """Raises ValueError for what ``pack`` cannot have made."""
    first, _, body = packed.partition(b"\n")
    head: dict[str, Any] = orjson.loads(first)
    try:
        decision = Decision(head["agreement"], head["digest"], head["purpose"], tuple(head["fields"]))
        return Record(body, head["key_id"], decision, head["sub"], head["case"], head["trace"])
    except (KeyError, TypeError) as error:
        raise ValueError("a record has other members") from error


class Seal:
    """Seals, opens and hashes under one master key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise ValueError(f"the store's key must be {KEY_SIZE} bytes, not {len(key)}")
        self._records = hmac.digest(key, b"gsb store: records", "sha256")
        self._hashes = hmac.digest(key, b"gsb store: hashes", "sha256")
        self._check = _STORE

    def hash_as(self, other: Seal) -> None:
        """Hash and mask under another's key: what was hashed cannot be hashed anew when it is sealed anew."""
        if self._hashes != other._hashes:
            self._hashes = other._hashes
            self._check = _STORE + other._hashes

    def opens(self, other: Seal) -> bool:
        """Whether what the other has sealed opens here."""
        return self._records == other._records

    def keycheck(self) -> bytes:
        """What lies in a store so that no other key opens it; if need be with the key under which it hashes."""
        return self.seal({KEYCHECK: (self._check, b"")})[0]

    def recognise(self, keycheck: bytes) -> None:
        """Raises Unreadable unless this is the key of the store in which that lies; hashes as that store does."""
        check = self.open(keycheck, KEYCHECK, b"")
        if len(check) > len(_STORE):
            self._check, self._hashes = check, check[len(_STORE) :]

    def seal(self, parts: Mapping[bytes, tuple[bytes, bytes]]) -> list[bytes]:
        """Seals one plain text of each kind for its owner: version, salt, ciphertext, tag; 33 bytes are added.

        The parts share one salt and so one key, since deriving it is most of the cost, and differ in their nonces
        because they differ in kind. Each opens without the others.
        """
        salt = os.urandom(_SALT)
        cipher = AESGCM(hmac.digest(self._records, salt, "sha256"))
        head = VERSION + salt
        return [head + cipher.encrypt(kind, plain, owner) for kind, (plain, owner) in parts.items()]

    def open(self, sealed: bytes, kind: bytes, owner: bytes) -> bytes:
        """What was sealed for this kind and owner; raises Unreadable for anything else."""
        if sealed[:1] != VERSION or len(sealed) < _HEAD:
            raise Unreadable("a sealed record is of an unknown version")
        cipher = AESGCM(hmac.digest(self._records, sealed[1:_HEAD], "sha256"))
        try:
            return cipher.decrypt(kind, sealed[_HEAD:], owner)
        except InvalidTag:
            raise Unreadable("a sealed record does not open") from None

    def mask(self, digest: bytes, owner: str) -> bytes:
        """Hides, and shows again, a digest of at most 64 bytes: its owner has one only and keeps it.

        For a digest that could be guessed but need not be authenticated; cheaper than a record of its own.
        """
        pad = hashlib.blake2b(owner.encode(), digest_size=len(digest), key=self._hashes, person=b"mask").digest()
        hidden = int.from_bytes(digest, "big") ^ int.from_bytes(pad, "big")
        return hidden.to_bytes(len(digest), "big")

    def hash(self, issuer: str, value: str, use: bytes) -> bytes:
        """16 bytes that stand for a value of this issuer and tell nothing without the key.

        ``use`` (at most 16 bytes) keeps the hashes of different uses apart.
        """
        name = issuer.encode()
        message = len(name).to_bytes(4, "big") + name + value.encode()
        return hashlib.blake2b(message, digest_size=16, key=self._hashes, person=use).digest()

    def business(self, service: str, business: Business) -> str | bytes:
        """A business key as it is stored: a hash when it is personal, or too long for an index."""
        if business.personal or len(business.value) > _CLEAR:
            return self.hash(service, business.value, b"business")
        return business.value

    def subject(self, subject: str) -> bytes:
        """Whom a request is about, as it is stored: a hash, the same for every service."""
        return self.hash("", subject, b"subject")

    def cursor(self, accepted_at: float, row: int) -> str:
        """A place in a list as opaque text that nobody else can make."""
        position = _POSITION.pack(accepted_at, row)
        return base64.urlsafe_b64encode(position + self._mark(position)).decode()

    def read_cursor(self, cursor: str) -> tuple[float, int]:
        """The place of which a cursor tells. Raises CursorUnfit for one that was not made with this key."""
        if not _CURSOR.fullmatch(cursor):
            raise CursorUnfit("not the form of a cursor")
        data = base64.urlsafe_b64decode(cursor)
        position, mark = data[: _POSITION.size], data[_POSITION.size :]
        if not hmac.compare_digest(mark, self._mark(position)):
            raise CursorUnfit("not a cursor of this store")
        accepted_at, row = _POSITION.unpack(position)
        return accepted_at, row

    def _mark(self, position: bytes) -> bytes:
        return self.hash("", position.hex(), b"cursor")[:8]
