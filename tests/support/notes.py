"""A log, a witness and a signed checkpoint for tests, and notes that others published.

``published/go-note-test.note`` is the note of the tests of Go's golang.org/x/mod/sumdb/note, ``go-sum-database.note``
a tree head of Go's checksum database, ``arche2025h1.note`` a checkpoint of a public log with its public witnesses.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gsb.evidence.checkpoint import Checkpoint, Cosigner, Signer, Verifier

ORIGIN = "bus.example/log/2026"
ROOT = hashlib.sha256(b"root").digest()


def key(seed: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)


SIGNER = Signer(ORIGIN, key(1))
LOG_KEY = Verifier.of(SIGNER.vkey)
CHECKPOINT = Checkpoint(ORIGIN, 70_000, ROOT)
SIGNED = SIGNER.sign(CHECKPOINT.text())
TEXT, LINES = SIGNED.decode().rsplit("\n\n", 1)
COSIGNER = Cosigner("audit.example/witness", key(2))
WITNESS_KEY = Verifier.of(COSIGNER.vkey)

PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
"""A key of Go's note, its private one, and another key that signed it."""
PETERS_SECRET = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
ENOCH = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
GO_SUM = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
ARCHE = "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"
WITNESSES = [
    "transparency.dev/DEV:witness-little-garden+d8042a87+BCtusOxINQNUTN5Oj8HObRkh2yHf/MwYaGX4CPdiVEPM",
    "witness1.smartit.nu/witness1+a48c820f+BPSFWg9G6KPiO7QPryYO5Xq4oYJJ+kAvLKLSimDhoxMO",
    "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
    "witness.stagemole.eu+67f7aea0+BEqSG3yu9YrmcM3BHvQYTxwFj3uSWakQepafafpUqklv",
]


def published(name: str) -> bytes:
    return (Path(__file__).parent / "published" / f"{name}.note").read_bytes()


def line(name: str, key_id: bytes, value: bytes) -> bytes:
    """A signature line, whoever may have made it."""
    return f"\N{EM DASH} {name} {base64.b64encode(key_id + value).decode()}\n".encode()


def signed_by_us(text: str) -> bytes:
    """The note of a text, signed by the log's key, which ``sign`` might refuse."""
    return text.encode() + b"\n" + line(ORIGIN, LOG_KEY.key_id, key(1).sign(text.encode()))
