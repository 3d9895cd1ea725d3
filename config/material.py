"""Makes what a deployment needs and no repository may hold: the private keys of the bus, its log, its store and whoever
signs.

What is there stays as it is, so keys outlive a run. A crash half-way is mended by the next call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gsb import jwk
from gsb.store.seal import new_key


@dataclass(frozen=True, slots=True)
class Made:
    """One thing that was needed, and whether it had to be made."""

    name: str
    new: bool


def keys(folder: Path, signers: Mapping[str, str]) -> list[Made]:
    """``store.key``, and for each signer with its algorithm ``NAME.jwk`` and ``NAME.public.jwk``. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = [_private(folder / "store.key", lambda: new_key().encode() + b"\n")]
    for name, algorithm in signers.items():
        made.append(_private(folder / f"{name}.jwk", partial(jwk.generate, algorithm)))
        (folder / f"{name}.public.jwk").write_bytes(jwk.public_of((folder / f"{name}.jwk").read_bytes()))
    return made


def _private(path: Path, make: Callable[[], bytes]) -> Made:
    """A file that only its owner can read, written whole or not at all."""
    if path.exists():
        return Made(path.name, new=False)
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600, exist_ok=False)
    unfinished.write_bytes(make())
    unfinished.rename(path)
    return Made(path.name, new=True)
