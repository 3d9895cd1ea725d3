"""The deployment that is tried: one ledger behind the adapter ``http_json``, with a service for each effect."""

from __future__ import annotations

from pathlib import Path

from tests.support.deployment import Deployment, closed

SERVICES = {"look": "none", "mark": "repeatable", "post": "once"}
PURPOSE = "payroll"
TIMEOUT = 8.0
"""Seconds for one call of the ledger, whose slowest takes little more than one: on a busy machine too, no call may be
given up while its effect is still to come, since the operator then looks for it. The lease that a kill leaves behind
is longer by a fixed margin, and ``once`` is unknown only after it."""

REQUEST = closed(
    {
        "key": {"type": "string", "maxLength": 100},
        "delay": {"type": "integer", "minimum": 0, "maximum": 2_000},
        "early": {"type": "boolean"},
        "mood": {"enum": ["fine", "busy", "down", "broken", "refuse"]},
    },
    {"key": "k", "delay": 1, "early": True, "mood": "fine"},
)
REPLY = closed({"key": {"type": "string"}, "receipt": {"type": "integer"}}, {"key": "k", "receipt": 1})

MEMBERS = {name: f"body.{name}" for name in ("key", "delay", "early", "mood")} | {"exchange": "exchange"}
ANSWERS = {"refused": {"409": "conflict"}}


def ledger(root: Path, core_url: str) -> Deployment:
    """Not yet written; the store has a folder of its own, which a power cut can be tried on."""
    deployment = Deployment(root)
    deployment.gsb["store"]["path"] = "store/store.db"
    (deployment.folder / "store").mkdir()
    deployment.system("ledger", adapter="http_json", settings={"url": core_url}, timeout=TIMEOUT, concurrency=200)
    how = {
        "look": {"path": "/look", "query": MEMBERS},
        "mark": {"method": "PUT", "path": "/mark", "content": MEMBERS},
        "post": {"method": "POST", "path": "/post", "content": MEMBERS},
    }
    for name, effect in SERVICES.items():
        deployment.service(
            f"ledger/{name}/v1", effect=effect, request=REQUEST, reply=REPLY, settings=how[name] | ANSWERS
        )
    grants = [{"service": f"ledger/{name}/v1", "purpose": PURPOSE, "fields": [""]} for name in SERVICES]
    deployment.agreement("a-1", grants=grants)
    return deployment
