"""What a test needs from outside: skipped with one line where it is missing, failed in the continuous run."""

from __future__ import annotations

import os

import pytest


def needs(condition: bool, missing: str) -> None:
    """Go on if ``condition`` holds. ``missing`` names what is not there and the command that installs it."""
    if condition:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)
