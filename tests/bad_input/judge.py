"""What every answer must be, whatever was wrong: an RFC 9457 problem or the right answer, signed exactly when the bus
knows who called, without a trace and without an echo."""

from __future__ import annotations

import base64
import re
from typing import Any

import orjson

from gsb import jws
from gsb.errors import TABLE, Problem
from gsb.jws import ReplyClaims
from tests.bad_input.case import KNOWN_FROM, Case
from tests.bad_input.draft import Draft
from tests.bad_input.stage import CANARIES, Stage
from tests.bad_input.wire import Heard, say

USUAL = {"type", "title", "status", "detail", "instance", "code", "origin"}
TRACES = re.compile(
    rb"Traceback|File \"|\.py\b|line [0-9]+, in |/gsb/|site-packages|<[a-z.]+ object"
    rb"|\b[A-Z][A-Za-z]*(Error|Exception)\b"
)
URN = re.compile(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
LOUD = ("internal_error", "store_unavailable", "recorder_behind", "log_unavailable")
"""Only these may leave an error in the log: anything else is the caller's doing, and callers must not flood it."""


def right_draft(stage: Stage, kind: str) -> Draft:
    """A right call, before which the log is read: what other nodes of this process did is not its doing."""
    log, _ = stage.log.taken()
    assert not any(canary.decode() in log for canary in CANARIES), log
    return stage.draft(kind)


async def hold(stage: Stage, case: Case) -> None:
    """Do the case on this stage and hold the answer to it. What the bus said is noted first."""
    draft = right_draft(stage, case.kind)
    case.spoil(draft)
    if case.before is not None:
        await case.before(stage, draft)
    token, data = draft.render()
    heard = await say(draft.port, data)
    assert heard is not None, "there was no answer"
    stage.seen[case.name] = orjson.loads(heard.body)["code"] if heard.status >= 400 else None
    if case.after is not None:
        await case.after(stage, draft)
    held(stage, case, draft, token, heard)


def held(stage: Stage, case: Case, draft: Draft, token: str, heard: Heard) -> None:
    claims = signed(stage, case, draft, token, heard)
    if case.code is None:
        assert heard.status == case.status, heard.body
    else:
        assert_problem(stage, case, heard)
    said = (case.exchange or (None, None)) if case.code or case.exchange else None
    if claims is not None and said is not None:
        assert (claims.state, claims.effect) == said
    assert heard.one("idempotent-replayed") == ("true" if case.replayed else None)
    assert heard.one("cache-control") == "no-store, no-transform"
    assert heard.one("content-encoding") is None
    silent(stage, case.code, heard)


def sane(stage: Stage, draft: Draft, heard: Heard | None) -> None:
    """What must hold of the answer to any bytes at all: a problem that is the caller's, or what was asked for."""
    assert heard is not None, "there was no answer"
    assert heard.status < 500, heard.body
    if heard.status < 400:
        assert heard.status == 202 or orjson.loads(heard.body) == orjson.loads(draft.body)
        assert heard.one("gsb-signature") is not None
        silent(stage, None, heard)
        return
    document = orjson.loads(heard.body)
    usual(stage, document, heard)
    assert (heard.one("gsb-signature") is not None) <= at_or_after(document["code"])
    silent(stage, document["code"], heard)


def at_or_after(code: str) -> bool:
    """Whether this problem may be told to somebody known; ``claim_missing`` is when a service wants a purpose."""
    order = list(TABLE)
    return code == "claim_missing" or order.index(code) >= order.index(KNOWN_FROM)


def signed(stage: Stage, case: Case, draft: Draft, token: str, heard: Heard) -> ReplyClaims | None:
    """The claims of the reply, verified; None when it has to be unsigned, and is."""
    if not case.known:
        assert heard.one("gsb-signature") is None, "a stranger got a signed answer"
        return None
    public = stage.deployment.bus_key().public
    return jws.verify_reply(
        heard.one("gsb-signature"),
        {public.kid: public},
        bus=stage.deployment.bus,
        caller=draft.issuer,
        request_jws=token,
        status=heard.status,
        body=heard.body,
        content_type=heard.one("content-type"),
        now=stage.clock.now,
    )


def usual(stage: Stage, document: dict[str, Any], heard: Heard) -> type[Problem]:
    """An RFC 9457 document as every problem is one."""
    assert heard.one("content-type") == "application/problem+json"
    kind = TABLE[document["code"]]
    told = (heard.status, document["status"], document["origin"], document["title"])
    assert told == (kind.status, kind.status, kind.origin, kind.title), document
    assert document["type"] == f"{stage.deployment.bus_url}/problems/{kind.code}"
    assert URN.fullmatch(document["instance"])
    assert isinstance(document["detail"], str)
    assert document["detail"]
    headers(kind.status, heard)
    stage.members.update(document)
    return kind


def assert_problem(stage: Stage, case: Case, heard: Heard) -> None:
    """The very problem of the case, with exactly the members that it should have."""
    document: dict[str, Any] = orjson.loads(heard.body)
    assert document.get("code") == case.code, document
    usual(stage, document, heard)
    more = {name: value for name, value in document.items() if name not in USUAL}
    errors = more.pop("errors", None)
    if case.pointers is None:
        assert errors is None, errors
    else:
        assert errors is not None, "nothing says where the body is wrong"
        assert all(set(each) == {"pointer", "detail"} and each["detail"] for each in errors), errors
        if case.pointers is not ...:
            assert sorted(each["pointer"] for each in errors) == sorted(case.pointers)
    assert more.keys() == case.members.keys()
    for name, value in case.members.items():
        assert value is ... or more[name] == value
    assert more.get("now", int(stage.clock.now)) == int(stage.clock.now)


def headers(status: int, heard: Heard) -> None:
    """What RFC 9110 wants beside each status, and the bus's page with it."""
    assert (heard.one("www-authenticate") == "GSB-Signature") == (status == 401)
    assert (heard.one("allow") is not None) == (status == 405)
    assert (heard.one("retry-after") is not None) == (status in (429, 503))
    assert (heard.one("retry-after") or "1").isdigit()


def silent(stage: Stage, code: str | None, heard: Heard) -> None:
    """No trace, and no value of the caller's in what is said or logged; a right answer is the caller's own."""
    said = [] if code is None else [heard.body]
    for name, value in heard.headers:
        said.append(_shown(value) if name == "gsb-signature" else value.encode("latin-1"))
    log, errors = stage.log.taken()
    for text in (*said, log.encode()):
        for canary in CANARIES:
            assert canary.lower() not in text.lower(), text
    for text in said:
        assert not TRACES.search(text), text
    assert "Traceback" not in log
    assert not errors or code in LOUD, log


def _shown(token: str) -> bytes:
    """The claims of a reply but for the request's own jti, which it names by the rules."""
    claims = orjson.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    return orjson.dumps({name: value for name, value in claims.items() if name != "req_jti"})
