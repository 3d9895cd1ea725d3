"""The generated parts of the wire profile's page: worked examples, signed here with published keys, and problem codes.

Pure: the time and the ids of the examples are fixed, and Ed25519 signs the same bytes in the same way each time.
"""

from __future__ import annotations

from collections.abc import Mapping

from gsb import jws
from gsb.errors import TABLE, Problem
from gsb.jwk import from_base64url, read_private

AGENCY_KEY = (
    b'{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",'
    b'"d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}'
)
"""RFC 8037, appendix A.1."""
BUS_KEY = (
    b'{"kty":"OKP","crv":"Ed25519","x":"PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw",'
    b'"d":"TM0Imyj_ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U-4pvs"}'
)
"""RFC 8032, section 7.1, test 2."""
BUS, AGENCY, BASE_URL = "bus.example", "payroll", "https://bus.example"
NOW = 1_772_355_600
"""2026-03-01T09:00:00Z"""
JTI, REPLY_JTI = "Zk3mQ9vT1xYp0aBcD2eF5g", "r7Wn4uJ8sKd1LhVbXo6PyA"
KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
BODY = b'{"person":"T-00042","income":{"amount":"1234.50","currency":"XOF"}}'
REPLY_BODY = b'{"income_tax":{"amount":"185.18","currency":"XOF"}}'
EXCHANGE = "019ca8b2-3a80-7c55-9f0e-5b1d7e2a9c31"
ENTRY = "n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg"


def problems_table() -> str:
    """Every problem code in Markdown, in the order in which the bus checks."""
    rows = (f"| `{each.code}` | {each.status} | {each.origin} | {_cells(each)} |" for each in TABLE.values())
    return "\n".join(["| code | status | origin | what happened | what to do |", "|---|---|---|---|---|", *rows])


def _cells(problem: type[Problem]) -> str:
    return " | ".join(" ".join(text.split()).replace("|", "\\|") for text in (problem.title, problem.advice))


def example_request() -> str:
    """The JWS of the worked request."""
    return jws.sign_request(
        read_private(AGENCY_KEY),
        issuer=AGENCY,
        audience=BUS,
        method="POST",
        target_uri=f"{BASE_URL}/services/tax/income-tax/v1",
        body=BODY,
        content_type="application/json",
        idempotency_key=KEY,
        purpose="payroll",
        now=NOW,
        jti=JTI,
    )


def example_reply() -> str:
    """The JWS of the reply to it."""
    facts = jws.ReplyFacts(
        status=200,
        body=REPLY_BODY,
        content_type="application/json",
        exchange=EXCHANGE,
        state="done",
        effect="none",
        entry=ENTRY,
    )
    return jws.sign_reply(
        read_private(BUS_KEY),
        issuer=BUS,
        audience=AGENCY,
        request_jti=JTI,
        request_hash=jws.request_hash(example_request()),
        facts=facts,
        now=NOW + 1,
        jti=REPLY_JTI,
    )


def examples() -> str:
    """Both messages in Markdown: keys, claims and the whole HTTP text."""
    request, reply = example_request(), example_reply()
    asked = {
        "POST /services/tax/income-tax/v1 HTTP/1.1": None,
        "Host": "bus.example",
        "Content-Type": "application/json",
        "Idempotency-Key": f'"{KEY}"',
        "GSB-Signature": request,
    }
    answered = {
        "HTTP/1.1 200 OK": None,
        "Content-Type": "application/json",
        "Cache-Control": "no-store, no-transform",
        "GSB-Signature": reply,
    }
    paragraphs = [
        f"### The request of `{AGENCY}` to `{BUS}`",
        f"The agency's private key (RFC 8037, appendix A.1), with the thumbprint `{read_private(AGENCY_KEY).kid}`:",
        _block(AGENCY_KEY.decode()),
        "JOSE header and claims, as they are signed:",
        _signed(request),
        f"The request as it is sent. The body has {len(BODY)} bytes and no line end:",
        _http(asked, BODY),
        f"### The reply of `{BUS}`",
        f"The bus's private key (RFC 8032, section 7.1, test 2), with the thumbprint `{read_private(BUS_KEY).kid}`:",
        _block(BUS_KEY.decode()),
        "JOSE header and claims, as they are signed; `req_hash` is the hash of the request's JWS above:",
        _signed(reply),
        f"The reply as it is received. The body has {len(REPLY_BODY)} bytes and no line end:",
        _http(answered, REPLY_BODY),
    ]
    return "\n\n".join(paragraphs)


def _signed(token: str) -> str:
    header, claims = (from_base64url(part) for part in token.split(".")[:2])
    return _block(f"{header.decode()}\n{claims.decode()}")


def _http(head: Mapping[str, str | None], body: bytes) -> str:
    lines = [name if value is None else f"{name}: {value}" for name, value in head.items()]
    return _block("\n".join([*lines, "", body.decode()]))


def _block(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())
