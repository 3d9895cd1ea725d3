"""Private keys of the bus in an HSM, reached by PKCS#11: they sign there, and nothing of them is here but their names.

One thread asks all that is asked: the library underneath starts a module without telling it of threads, so two at once
could break it. What fails is tried once more from the beginning (module, token, session), since a session is worth
nothing after its token was away. As long as it fails, nothing is signed, and it is tried again every two seconds; but a
PIN that was refused is never tried twice, since tokens lock themselves after a few. A module that hangs costs a thread,
which does not keep the process from ending. A crash loses nothing.

Sources: PKCS#11 3.0, sections 2.3.6 (CKM_ECDSA, whose r and s are JWS's own form), 2.3.14 (CKM_EDDSA) and 2.1.10
(CKM_RSA_PKCS_PSS).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.util import find_spec
from queue import SimpleQueue
from typing import Any, TypeVar

from gsb.errors import SigningUnavailable
from gsb.jwk import PrivateKey, PublicKey
from gsb.sources import HsmTable
from gsb.trouble import Trouble

INSTALLED = find_spec("pkcs11") is not None
if INSTALLED:
    import pkcs11
    from pkcs11.exceptions import (
        MultipleObjectsReturned,
        MultipleTokensReturned,
        NoSuchKey,
        NoSuchToken,
        PinExpired,
        PinIncorrect,
        PinInvalid,
        PinLenRange,
        PinLocked,
        PKCS11Error,
    )

log = logging.getLogger("gsb.hsm")

T = TypeVar("T")
Handle = Any
"""A session or key of the library, which makes the classes of both while it runs."""

WITHIN = 5.0
"""Seconds for a signature, the wait for those before it among them."""
EVERY = 2.0
"""Seconds between two looks whether it signs: so a node knows before a call comes, and when it does again."""
PROOF = b"gsb"
"""What is signed to see whether a key signs, and is the one that it should be. It is no JWS."""
SLOW = f"it has not answered within {WITHIN:g} s"
DO = "see that its device, its service and the files of [bus.hsm] are there, then gsb doctor"


class HsmAway(Exception):
    """It signs nothing now. The text says what is wrong, and never a PIN."""


@dataclass(frozen=True, slots=True)
class HsmKey(PrivateKey):
    """A private key in an HSM; in a node, its ``sign`` is only for work that ``run`` runs."""

    label: str
    hsm: Hsm = field(repr=False, compare=False)

    @property
    def away(self) -> bool:
        """Whether it did not sign at the last try."""
        return self.hsm.trouble(self.label).there

    async def run(self, make: Callable[[PrivateKey], T]) -> T:
        """What ``make`` makes with this key. Raises SigningUnavailable."""
        if self.away:
            raise SigningUnavailable
        try:
            async with asyncio.timeout(WITHIN):
                return await asyncio.wrap_future(_line().do(partial(make, self)))
        except TimeoutError:
            why = SLOW
        except SigningUnavailable as away:
            why = str(away)
        self._tell(why)
        raise SigningUnavailable

    async def look(self) -> str | None:
        """Why it does not sign; None when it does."""
        try:
            async with asyncio.timeout(WITHIN):
                why = await asyncio.shield(asyncio.wrap_future(self.hsm.looked(self)))
        except TimeoutError:
            why = SLOW
        if why is None:
            self.hsm.trouble(self.label).is_over()
        else:
            self._tell(why)
        return why

    def _tell(self, why: str) -> None:
        self.hsm.trouble(self.label).is_there(f"the HSM does not sign with {self.label!r}: {why}; {DO}")


class Hsm:
    """One token."""

    def __init__(self, table: HsmTable) -> None:
        self._table = table
        self._session: Handle | None = None
        self._keys: dict[str, Handle] = {}
        """By label; each has signed for its public half since the session began."""
        self._refused: tuple[int, ...] | None = None
        """The PIN's file as it was when the token refused what stands in it."""
        self._troubles: dict[str, Trouble] = {}
        self._looks: dict[str, Future[str | None]] = {}

    def key(self, label: str, public: PublicKey) -> HsmKey:
        """The private key of this label, whose public half is known already. Nothing is asked yet."""
        return HsmKey(public.kid, public.jwk["alg"], public, partial(self.sign, label, public), label, self)

    def trouble(self, label: str) -> Trouble:
        """Whether the key of this label signs, as far as the event loop knows."""
        return self._troubles.setdefault(label, Trouble(log, f"the HSM signs with {label!r} again"))

    def looked(self, key: HsmKey) -> Future[str | None]:
        """Why the key does not sign, as soon as the thread knows; of an HSM that hangs this is asked only once."""
        look = self._looks.get(key.label)
        if look is None or look.done():
            look = self._looks[key.label] = _line().do(partial(_why_not, key))
        return look

    # --- in the thread

    def sign(self, label: str, public: PublicKey, message: bytes) -> bytes:
        """With the key of this label. Raises SigningUnavailable, which says why for whoever runs the bus."""
        try:
            return self._sign(label, public, message)
        except HsmAway as away:
            raise SigningUnavailable(str(away)) from away

    def session(self, *, write: bool = False) -> Handle:
        """A new session; those that were there before are worth nothing any more. Raises HsmAway."""
        mark, pin = self._pin()
        self._forget()
        try:
            library = pkcs11.lib(str(self._table.module))
            # To begin anew is the only way that every module takes: some see a token that comes back only then.
            library.reinitialize()
            return library.get_token(token_label=self._table.token).open(rw=write, user_pin=pin)
        except NoSuchToken as error:
            raise HsmAway(f"it has no token with the label {self._table.token!r}") from error
        except MultipleTokensReturned as error:
            raise HsmAway(f"several tokens have the label {self._table.token!r}") from error
        except (PinExpired, PinIncorrect, PinInvalid, PinLenRange, PinLocked) as error:
            self._refused = mark
            raise HsmAway(f"it refuses the PIN in {self._table.pin} ({type(error).__name__})") from error
        except PKCS11Error as error:
            raise HsmAway(f"{self._table.module} cannot be used: {_said(error)}") from error

    def _pin(self) -> tuple[tuple[int, ...], str]:
        path = self._table.pin
        try:
            status = path.stat()
            pin = path.read_text("utf-8").strip("\r\n")
        except (OSError, ValueError) as error:
            raise HsmAway(f"{path} cannot be read: {type(error).__name__}") from None
        mark = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if mark == self._refused:
            raise HsmAway(f"it refused the PIN in {path}, which is not tried again before the file changes")
        if not pin:
            raise HsmAway(f"{path} is empty")
        return mark, pin

    def _forget(self) -> None:
        self._session = None
        self._keys.clear()

    def _sign(self, label: str, public: PublicKey, message: bytes) -> bytes:
        fresh = self._session is None
        try:
            return _SIGN[public.jwk["alg"]](self._key(label, public), message)
        except PKCS11Error as error:
            self._forget()
            if fresh:
                raise HsmAway(f"it does not sign with {label!r}: {_said(error)}") from error
        return self._sign(label, public, message)

    def _key(self, label: str, public: PublicKey) -> Handle:
        if self._session is None:
            self._session = self.session()
        if label not in self._keys:
            try:
                key = self._session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, label=label)
            except NoSuchKey as error:
                raise HsmAway(f"it has no private key with the label {label!r}") from error
            except MultipleObjectsReturned as error:
                raise HsmAway(f"several private keys have the label {label!r}") from error
            algorithm = public.jwk["alg"]
            if not public.verify(algorithm, PROOF, _SIGN[algorithm](key, PROOF)):
                raise HsmAway(f"its key {label!r} is not that of the public file that [[bus.keys]] names with it")
            self._keys[label] = key
        return self._keys[label]


@cache
def hsm_of(table: HsmTable) -> Hsm:
    """The one of this table: a module is started once in a process, whatever is reloaded."""
    return Hsm(table)


def _said(error: Exception) -> str:
    """Return codes of PKCS#11 are types without a text; a library that cannot be loaded has one."""
    return str(error) or type(error).__name__


def _why_not(key: HsmKey) -> str | None:
    try:
        key.sign(PROOF)
    except SigningUnavailable as away:
        return str(away)
    return None


def _ecdsa(key: Handle, message: bytes) -> bytes:
    return bytes(key.sign(hashlib.sha256(message).digest(), mechanism=pkcs11.Mechanism.ECDSA))


def _eddsa(key: Handle, message: bytes) -> bytes:
    return bytes(key.sign(message, mechanism=pkcs11.Mechanism.EDDSA))


def _pss(key: Handle, message: bytes) -> bytes:
    parameters = (pkcs11.Mechanism.SHA256, pkcs11.MGF.SHA256, 32)
    digest = hashlib.sha256(message).digest()
    return bytes(key.sign(digest, mechanism=pkcs11.Mechanism.RSA_PKCS_PSS, mechanism_param=parameters))


_SIGN: dict[str, Callable[[Handle, bytes], bytes]] = {
    "ES256": _ecdsa,
    "Ed25519": _eddsa,
    "EdDSA": _eddsa,
    "PS256": _pss,
}


class _Line:
    """The thread in which everything is asked, in the order of asking."""

    def __init__(self) -> None:
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        threading.Thread(target=self._run, name="gsb-hsm", daemon=True).start()

    def do(self, work: Callable[[], T]) -> Future[T]:
        asked: Future[T] = Future()
        self._work.put((asked, work))
        return asked

    def _run(self) -> None:
        while True:
            asked, work = self._work.get()
            if not asked.set_running_or_notify_cancel():
                continue  # nobody waits for it any more
            try:
                result = work()
            except Exception as error:
                asked.set_exception(error)
            else:
                asked.set_result(result)


@cache
def _line() -> _Line:
    return _Line()
