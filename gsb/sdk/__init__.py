"""The public surface for adapters. It knows nothing of keys, agreements, store, evidence or broker."""

from gsb.model import Effect, Reply, Request
from gsb.sdk.adapter import (
    Adapter,
    Call,
    ClientTls,
    Context,
    DeploymentFile,
    HttpSettings,
    NoSettings,
    SecretFile,
    Settings,
)
from gsb.sdk.clock import Clock
from gsb.sdk.errors import AdapterError, Broken, Refused, Unavailable, acted
from gsb.sdk.http import Http, HttpReply, basic
from gsb.sdk.mapping import Shape, decimal_string, scope
from gsb.sdk.money import Currency

__all__ = [
    "Adapter",
    "AdapterError",
    "Broken",
    "Call",
    "ClientTls",
    "Clock",
    "Context",
    "Currency",
    "DeploymentFile",
    "Effect",
    "Http",
    "HttpReply",
    "HttpSettings",
    "NoSettings",
    "Refused",
    "Reply",
    "Request",
    "SecretFile",
    "Settings",
    "Shape",
    "Unavailable",
    "acted",
    "basic",
    "decimal_string",
    "scope",
]
