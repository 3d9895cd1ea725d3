"""An adapter for tests: composed of two steps, between which it kills its process, but only once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from gsb.sdk import Adapter, NoSettings, Reply, Request, Settings


class StepsSettings(Settings):
    service: str
    """What both steps ask for."""
    marker: str
    """A file that is there once the process was killed."""


class Steps(Adapter[StepsSettings, NoSettings]):
    Settings = StepsSettings

    async def handle(self, request: Request) -> Reply:
        settings, replies = self.context.settings, []
        for step in ("first", "second"):
            body = {"text": step}
            replies.append(await self.context.call(request, settings.service, body, step=step, purpose="payroll"))
            die_once(Path(settings.marker))
        return Reply({"steps": replies})


def die_once(marker: Path) -> None:
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
