"""Backups: one file that holds a whole deployment, sealed for who may restore it, and signed by the bus."""

from importlib.util import find_spec

INSTALLED = find_spec("pyrage") is not None
"""Whether the extra ``backup`` is installed, without which nothing else in here can be imported."""
MISSING = "install the bus with the extra backup"
