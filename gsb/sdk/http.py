"""The HTTP client that adapters get: bounded in time and size, and precise about whether something was sent."""

from __future__ import annotations
