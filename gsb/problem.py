"""Problems as documents: RFC 9457 in JSON, and as the answer that carries one. Never a trace, never a value."""

from __future__ import annotations

from typing import Any

import orjson

from gsb.errors import Problem
from gsb.model import PROBLEM_TYPE, Answer, Exchange


def document(problem: Problem, base_url: str, instance: str) -> dict[str, Any]:
    """The problem document. ``instance`` is a URN that names this occurrence, so that it can be asked about."""
    shown: dict[str, Any] = {
        "type": f"{base_url}/problems/{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail or problem.advice,
        "instance": instance,
        "code": problem.code,
        "origin": problem.origin,
    }
    if problem.faults:
        shown["errors"] = [{"pointer": fault.pointer, "detail": fault.detail} for fault in problem.faults]
    return shown | problem.extra


def problem_answer(problem: Problem, base_url: str, instance: str, exchange: Exchange | None = None) -> Answer:
    """The answer that tells a problem; ``exchange`` when it speaks of one."""
    headers = dict(problem.headers)
    if problem.status == 401:
        headers["WWW-Authenticate"] = "GSB-Signature"  # RFC 9110, section 15.5.2 wants one with each 401
    if problem.status == 503:
        headers.setdefault("Retry-After", "1")
    body = orjson.dumps(document(problem, base_url, instance))
    return Answer(problem.status, body, PROBLEM_TYPE, headers, exchange)
