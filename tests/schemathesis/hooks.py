"""A client of the bus inside schemathesis, which signs every call as schemas/WIRE_PROFILE.md says.

It runs in an environment of its own and imports nothing of the bus. The file that ``GSB_JOB`` names says who calls:
``bus``, ``agency``, ``key`` (a private JWK for ES256), ``other_key`` (nobody's), ``purposes`` by path, ``exchanges``
(ids of the agency's own) and ``counts`` (where the counts go).
"""

from __future__ import annotations

import atexit
import base64
import hashlib
import json
import os
import re
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import requests
import schemathesis
from hypothesis import strategies as st

JOB: dict[str, Any] = json.loads(Path(os.environ["GSB_JOB"]).read_text("utf-8"))
KEY: Any = jwt.PyJWK(JOB["key"], "ES256").key
FORGED: Any = jwt.PyJWK(JOB["other_key"], "ES256").key
"""Not the agency's key: whatever is signed with it must be refused."""
IDEMPOTENCY_KEY = re.compile(r'"[!#-\[\]-~]{1,128}"|[!#-\[\]-~]{1,128}')
EXCHANGE = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
COUNTS: dict[str, Counter[str]] = {}


def thumbprint(key: dict[str, str]) -> str:
    """RFC 7638."""
    members = json.dumps({name: key[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(members.encode()).digest()).rstrip(b"=").decode()


def claims(request: Any) -> dict[str, Any]:
    """What is signed of a request, from the bytes that are about to be sent."""
    body = request.body or b""
    body = body.encode() if isinstance(body, str) else body
    now = int(time.time())
    said = {
        "iss": JOB["agency"],
        "aud": JOB["bus"],
        "iat": now,
        "exp": now + 60,
        "jti": str(uuid.uuid4()),
        "method": request.method,
        "target_uri": request.url,
        "content_digest": f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:",
    }
    if body:
        said["content_type"] = text(request.headers.get("Content-Type", ""))
    if "Idempotency-Key" in request.headers:
        said["idempotency_key"] = text(request.headers["Idempotency-Key"]).removeprefix('"').removesuffix('"')
    path = urlsplit(request.url).path
    if path in JOB["purposes"]:
        said["purpose"] = JOB["purposes"][path]
    return said


def text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def sign(request: Any) -> Any:
    """What ``requests`` calls last of all before it sends."""
    request.headers["GSB-Signature"] = signature(request, KEY)
    return request


def signature(request: Any, key: Any) -> str:
    header = {"kid": thumbprint(JOB["key"]), "typ": "gsb-req+jwt"}
    return jwt.encode(claims(request), key, algorithm="ES256", headers=header)


# --- what is asked


def before_generate_case(context: Any, strategy: Any) -> Any:
    """Each call its own trace: without anything to vary, an operation without parameters would be called once."""
    return st.tuples(strategy, st.integers(1, 2**64 - 1)).map(traced)


def traced(drawn: Any) -> Any:
    """The case with a trace, and now and then with the wish not to wait, upon which there is no outcome at once."""
    case, number = drawn
    added = {"traceparent": f"00-{number:032x}-{number:016x}-01"}
    if number % 4 == 0:
        added["Prefer"] = "respond-async"
    case.headers = {**added, **(case.headers or {})}
    return case


def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """A valid idempotency key names its content, so that it means one thing; most valid ids are those of exchanges."""
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and IDEMPOTENCY_KEY.fullmatch(key):
        content = hashlib.sha256(repr((case.operation.label, case.body)).encode()).hexdigest()
        case.headers["Idempotency-Key"] = f'"{key.strip(chr(34))[:64]}{content}"'
    given = (case.path_parameters or {}).get("id")
    if isinstance(given, str) and EXCHANGE.fullmatch(given) and int(given[-1], 16) < 12:
        case.path_parameters["id"] = JOB["exchanges"][int(given[-4:], 16) % len(JOB["exchanges"])]


# --- what is answered


def after_call(context: Any, case: Any, response: Any) -> None:
    """Count the calls of each operation as they are described, whatever method a case takes."""
    if case.method.upper() == case.operation.method.upper():
        counts = COUNTS.setdefault(case.operation.label, Counter())
        counts["calls"] += 1
        counts[f"{response.status_code // 100}xx"] += 1
        counts[response.json()["code"] if response.status_code >= 400 else str(response.status_code)] += 1


def refuses_the_unsigned(ctx: Any, response: Any, case: Any) -> None:
    """What needs a signature is not answered without one, nor with one by another key."""
    request = response.request
    if not 200 <= response.status_code < 300 or "GSB-Signature" not in request.headers or not needs_signature(case):
        return
    for headers in ({}, {"GSB-Signature": signature(request, FORGED)}):
        others = {name: value for name, value in request.headers.items() if name != "GSB-Signature"}
        answer = requests.request(
            request.method, request.url, data=request.body, headers={**others, **headers}, timeout=90
        )
        assert answer.status_code == 401, f"{answer.status_code} without a good signature"


def needs_signature(case: Any) -> bool:
    said = case.operation.definition.raw.get("security", case.operation.schema.raw_schema["security"])
    return bool(said) and {} not in said


@atexit.register
def tell() -> None:
    Path(JOB["counts"]).write_text(json.dumps(COUNTS), "utf-8")


schemathesis.auth.set_from_requests(sign)
for hook in (before_generate_case, before_call, after_call):
    schemathesis.hook(hook)
schemathesis.check(refuses_the_unsigned)
