"""The three errors an adapter may raise. Anything else that escapes it counts as ``Broken``.

Which one it is decides what happens next, so choose by consequence:

- ``Unavailable``: not now. Tried again with back-off, unless it may have acted and must not act twice.
- ``Refused``: the core system understood and said no. Final, and the caller is told the code.
- ``Broken``: its answer makes no sense. Nothing is retried blindly; an operator looks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class AdapterError(Exception):
    """Base of the three. ``detail`` goes to the evidence, never to the caller or a log."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail)
        self.detail = detail


class Unavailable(AdapterError):
    """The core system cannot be reached or has no time.

    ``sent`` is False only if certainly nothing of this request reached it by which anything could take effect.
    ``after`` is its own wish, in seconds, for when to try again.
    """

    def __init__(self, detail: str = "", *, sent: bool, after: float | None = None) -> None:
        super().__init__(detail)
        self.sent = sent
        self.after = after


class Refused(AdapterError):
    """The core system said no, and nothing took effect. ``code`` is one of those its manifest declares."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(detail)
        self.code = code


class Broken(AdapterError):
    """The core system answered something that its interface does not allow."""


@contextmanager
def acted() -> Iterator[None]:
    """Around whatever follows a step that took effect, such as reading what came of it.

    What fails there says nothing of that step: ``Unavailable`` says ``sent=True``, even if its own call was never sent,
    and a refusal becomes ``Broken``, since by ``Refused`` nothing would have taken effect.
    """
    try:
        yield
    except Unavailable as error:
        error.sent = True
        raise
    except Refused as error:
        raise Broken(f"refused after a step that took effect: {error.detail}") from error
