"""No personal value, and no digest of one that could be guessed, in anything that the bus writes or says to others.

Every kind of exchange, refusal and act, with values planted wherever a call, a core system or an operator has a place
for one; then every byte is searched: the log's files, the store's, the lines of the log, the metrics, the texts of
problems and the headers. The last tests show that the search would find them.
"""

from __future__ import annotations

import base64
import hashlib
import io
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from gsb.admit import settled
from gsb.evidence.checkpoint import Signer
from gsb.evidence.entry import make_entry
from gsb.model import State
from gsb.sdk import Broken, Refused, Unavailable
from gsb.telemetry import JsonLines
from tests.support.auditor import contents_of
from tests.support.bus import ONCE, READ, REPEATABLE, answering, puppet, puppet_deployment, raising
from tests.support.canaries import Caller, Planted, forms
from tests.support.deployment import PERSON, Deployment, closed
from tests.support.node import InProcess, node_in_process

BRIEF = "registry/brief/v1"
"""A read that expires before anybody can perform it twice."""
FLOOD = 3
KINDS = {
    *("accepted", "outcome", "held", "unknown", "refused", "refusals", "act", "erased", "log_begun"),
}
"""Kinds of entries that the run must have led to, or it shows nothing."""
ENDS = {"done", "refused", "failed", "expired"}
CODES = {
    *("grant_missing", "purpose_not_granted", "service_unknown", "body_malformed", "body_invalid", "replayed"),
    *("idempotency_key_reused", "digest_mismatch", "exchange_unknown", "entry_unknown", "act_invalid"),
    *("role_missing", "reason_missing", "operator_required"),
}
"""Refusals that it must have led to."""


def deployment(root: Path) -> Deployment:
    made = puppet_deployment(root)
    made.gsb["limits"]["wait"] = 60  # a machine that stands still is no reason for a 202
    for service in (READ, REPEATABLE, ONCE):
        made.files[f"services/{service}.toml"]["business_key"] = "/id"
    person = {"type": "string", "x-personal": True, "x-subject": True}
    made.service(
        BRIEF, request=closed({"id": person}, {"id": "P-0001"}), reply=closed({"id": person}, {"id": "P-0001"})
    )
    made.files[f"services/{BRIEF}.toml"] |= {"expires": 0.3, "settings": {}}
    made.agreement("a-2", grants=[{"service": BRIEF, "purpose": "payroll", "fields": [""]}])
    return made


@contextmanager
def log_lines() -> Iterator[io.StringIO]:
    """What a node that is started with --verbose writes to its standard error."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonLines())
    root, ours = logging.getLogger(), logging.getLogger("gsb")
    before = ours.level
    root.addHandler(handler)
    ours.setLevel(logging.DEBUG)
    try:
        yield written
    finally:
        ours.setLevel(before)
        root.removeHandler(handler)


def files_of(deployment: Deployment) -> dict[str, bytes]:
    """Every file of log and store. Looked at again if the recorder gave one its name in between."""
    while True:
        files = [*deployment.log_folder.rglob("*"), *deployment.folder.glob("store.db*")]
        with suppress(FileNotFoundError):
            return {path.name + str(number): path.read_bytes() for number, path in enumerate(files) if path.is_file()}


class Run:
    """A node to which everything happens."""

    def __init__(self, node: InProcess) -> None:
        self.node, self.planted = node, Planted()
        self.caller = Caller(node, self.planted)

    def claims(self) -> dict[str, Any]:
        return {"purpose": "payroll", "sub": self.planted.text("sub"), "case": self.planted.text("case")}

    def body(self) -> dict[str, str]:
        return {"id": self.planted.person(), "text": self.planted.text("text")}

    async def call(self, service: str, body: Any, **more: Any) -> tuple[int, Any]:
        key = more.pop("key", None) or self.planted.text("key")
        return await self.caller.send("POST", f"/services/{service}", body, key=key, **{**self.claims(), **more})

    async def begun(self, service: str, body: Any, state: State) -> str:
        """An exchange that comes to stand like this."""
        status, said = await self.call(service, body, prefer="respond-async")
        assert status == 202, said
        with self.node.node.bus.waiters.waiting(said["exchange"]) as woken:
            woken.set()
            known = await settled(self.node.node.bus, said["exchange"], woken, 90)
        assert known.state is state
        return str(said["exchange"])

    def person(self) -> dict[str, Any]:
        """A record of the register."""
        return PERSON | {"id": self.planted.person(), "name": self.planted.text("name")}

    # --- what happens

    async def everything(self) -> None:
        await self.exchanges()
        await self.refusals()
        await self.nobody()
        await self.acts()
        await self.erasure()

    async def exchanges(self) -> None:
        puppet().acts = answering(self.person(), self.planted.text("rules"))
        assert (await self.call(READ, {"id": self.planted.person()}))[0] == 200
        written, key = self.body(), self.planted.text("key")
        puppet().acts = answering(written, self.planted.text("rules"))
        assert (await self.call(REPEATABLE, written))[0] == 200
        again: dict[str, Any] = {"key": key, **self.claims()}
        for _ in range(2):
            assert (await self.call(ONCE, written, **again))[0] == 200
        assert (await self.call(ONCE, self.body(), **again))[0] == 422
        puppet().acts = raising(Refused("not_found", self.planted.text("detail")))
        assert (await self.call(ONCE, self.body()))[0] == 422
        puppet().acts = answering({"id": self.planted.text("wrong"), "name": self.planted.text("name")})
        assert (await self.call(READ, {"id": self.planted.person()}))[0] == 502
        puppet().acts = raising(Unavailable(self.planted.text("detail"), sent=False))
        await self.begun(BRIEF, {"id": self.planted.person()}, State.EXPIRED)

    async def refusals(self) -> None:
        read = f"/services/{READ}"
        person = {"id": self.planted.person()}
        await self.call(READ, person, purpose=self.planted.keep("purpose", "canary-purpose-q7w3q7w3"))
        await self.caller.send("POST", read, person, owner="audit-office", **self.claims())
        await self.call(self.planted.text("service"), person)
        await self.call(READ, f'{{"id": "{self.planted.text("twice")}", "id": 1}}'.encode())
        for _ in range(FLOOD):
            await self.call(READ, {"id": self.planted.text("id"), "more": {"deep": self.planted.text("deep")}})
        jti = self.planted.text("jti")
        for _ in range(2):
            await self.call(READ, person, jti=jti, prefer="respond-async")
        other = orjson.dumps({"id": self.planted.person()})
        self.planted.values[other] = "signed instead"
        await self.caller.send("POST", read, person, signed_body=other, **self.claims())
        _, said = await self.call(READ, person, prefer="respond-async")
        exchange = f"/exchanges/{said['exchange']}"
        for path in (exchange, f"{exchange}/reply", f"{exchange}/receipt"):
            await self.caller.send("GET", f"{path}?{self.planted.text('query')}", owner="audit-office")
        await self.caller.send("GET", f"{exchange}/receipt?entry={self.planted.text('query')}")
        await self.caller.send("GET", f"{exchange}?{self.planted.text('query')}")
        await self.caller.send("GET", f"/{self.planted.text('path')}")

    async def nobody(self) -> None:
        url, told = self.node.url, self.planted.text
        for path in (f"/{told('path')}", f"/services?{told('query')}", f"/log/{told('log')}/checkpoint"):
            await self.caller.unsigned("GET", url + path, b"", {})
        for name in ("GSB-Signature", "Idempotency-Key", "Prefer", "traceparent", "If-None-Match", "User-Agent"):
            headers = {"Content-Type": "application/json", name: f"{told('header')} {told('header')}"}
            await self.caller.unsigned("POST", f"{url}/services/{READ}", b"{}", headers)

    async def acts(self) -> None:
        act, told = self.caller.act, self.planted.text
        puppet().acts = raising(Broken(told("detail")))
        unknown = await self.begun(ONCE, self.body(), State.UNKNOWN)
        held = await self.begun(READ, {"id": self.planted.person()}, State.HELD)
        ending = {"state": "done", "effect": "done", "reason": told("reason")}
        assert (await act("POST", f"/admin/exchanges/{unknown}/resolve", ending))[0] == 200
        assert (await act("POST", f"/admin/exchanges/{held}/replay", {"reason": told("reason")}))[0] == 200
        held = await self.begun(READ, {"id": self.planted.person()}, State.HELD)
        ending = {"state": "failed", "effect": "none", "reason": told("reason")}
        assert (await act("POST", f"/admin/exchanges/{held}/close", ending))[0] == 200
        for query in ("business_key", "agency", "service", "code", "cursor", "limit", "everything"):
            await act("GET", f"/admin/exchanges?reason={told('reason')}&{query}={told('query')}")
        for path, owner in (("", "olive"), ("/body", "ines"), ("/evidence", "ines"), ("/body", "otto")):
            await act("GET", f"/admin/exchanges/{held}{path}?reason={told('reason')}", owner=owner)
        await act("GET", f"/admin/exchanges/{held}?reason=no", owner="otto")
        await act("GET", f"/admin/exchanges/{held}?reason={told('reason')}", owner="payroll")

    async def erasure(self) -> None:
        puppet().acts = answering(self.person())
        person, law = self.planted.person(), {"legal_basis": "Data Protection Act 2019, section 17"}
        status, _ = await self.call(READ, {"id": person})
        assert status == 200
        by_subject = {
            **law,
            "reason": self.planted.text("reason"),
            "subject": person,
            "salt": self.planted.text("salt"),
        }
        status, said = await self.caller.act("POST", "/admin/erase", by_subject, owner="elsa")
        assert (status, len(said["erased"])) == (200, 1), said
        await self.caller.act("POST", "/admin/erase", {**by_subject, "legal_basis": f"wish of {person}"}, owner="elsa")

    # --- what was written

    async def written(self, lines: io.StringIO) -> dict[str, bytes]:
        """Everything, of a node that is still there; its last entries are in the files."""
        await self.node.node.bus.refusals.flush(every=True)
        await self.node.node.recorder.look()
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.node.operations_url}/metrics") as answer,
        ):
            metrics = await answer.read()
        return files_of(self.node.deployment) | {
            "lines": lines.getvalue().encode(),
            "metrics": metrics,
            "problems": b"\n".join(self.caller.refusals),
            "headers": b"\n".join(self.caller.headers),
        }

    def entries(self) -> list[dict[str, Any]]:
        (folder,) = self.node.deployment.log_folder.iterdir()
        origin = (folder / "checkpoint").read_text("utf-8").splitlines()[0]
        verifier = Signer(origin, self.node.node.bus.catalogue.log_key).verifier
        return [orjson.loads(each) for each in contents_of(folder, verifier)]


async def test_nothing_personal_is_written_or_told(tmp_path: Path) -> None:
    puppet().reset()
    with log_lines() as lines:
        async with node_in_process(tmp_path, deployment(tmp_path)) as node:
            run = Run(node)
            await run.everything()
            written = await run.written(lines)
            entries = run.entries()
    puppet().reset()
    kinds = Counter(each["kind"] for each in entries)
    assert kinds.keys() >= KINDS, kinds
    assert {each["state"] for each in entries if each["kind"] == "outcome"} == ENDS
    codes = {each["code"] for each in entries if each["kind"] == "refused"}
    assert codes >= CODES, CODES - codes
    assert sum(each["count"] for each in entries if each["kind"] == "refusals") >= FLOOD - 1
    assert min(len(written[name]) for name in ("lines", "metrics", "problems", "headers")) > 1_000
    assert len(run.planted.values) > 150
    assert run.planted.found(written) == []


# --- the search finds


async def test_what_would_be_written_is_found(tmp_path: Path) -> None:
    """The same search, where somebody has made the mistake that it is for."""
    puppet().reset()
    with log_lines() as lines:
        async with node_in_process(tmp_path, deployment(tmp_path)) as node:
            run = Run(node)
            person, body = run.planted.person(), b'{"id":"P-4242"}'
            run.planted.values[body] = "request"
            digest = hashlib.sha256(body).hexdigest()
            bus = node.node.bus
            await bus.store.note(make_entry("act", bus.clock(), {"act": "show", "about": person}, {}))
            await bus.store.note(make_entry("act", bus.clock(), {"act": "show", "digest": digest}, {}))
            logging.getLogger("gsb.web").info("a call", extra={"facts": {"person": person, "digest": digest}})
            found = run.planted.found(await run.written(lines))
    told = {(where.partition(".")[0].rstrip("0123456789") or "bundle", what) for where, what in found}
    for what in ("person, as it is", "request, digest in hex"):
        assert {where for where, each in told if each == what} == {"bundle", "store", "lines"}


@pytest.mark.parametrize("form", [kind for kind, _ in forms(b"x")])
def test_each_form_of_a_value_is_found(form: str) -> None:
    planted = Planted()
    value = planted.text("sub").encode()
    written = {"file": b"before " + dict(forms(value))[form] + b" behind"}
    assert ("file", f"sub, {form}") in planted.found(written)
    assert planted.found({"file": b"before and behind"}) == []


def test_a_content_digest_is_found() -> None:
    planted = Planted()
    planted.values[b'{"id":"P-4242"}'] = "request"
    header = b"sha-256=:" + base64.b64encode(hashlib.sha256(b'{"id":"P-4242"}').digest()) + b":"
    assert planted.found({"file": header}) == [("file", "request, digest in base64")]
