"""A personnel system on Tryton 7.0: each service reads records of one model, and its settings say what becomes of them.

Governments add fields of their own to Tryton's employees, so which fields a reply is made of is configuration. It only
reads: every service is ``effect = none`` and a crash means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from gsb.sdk import Adapter, Broken, Context, Effect, Refused, Reply, Request, Settings, Shape, scope
from gsb_adapters.tryton import Client, TrytonSettings

LARGEST_PAGE = 200
FIELD = r"^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*$"


class Question(Settings):
    """``[settings]`` of a service whose system has the adapter ``hrmis``. Expressions are JMESPath; they see the
    exchange as ``body``, ``exchange``, ``agency``, ``service``, ``purpose``, ``sub`` and ``case``."""

    model: str = Field(default="company.employee", pattern=FIELD)
    """The model whose records are read."""
    where: dict[str, Shape] = Field(default={})
    """Fields with the value that they must have, such as ``"party.code" = "body.employee"``."""
    read: list[str] = Field(min_length=1)
    """Fields to read; ``party.code`` reads a field of the record to which ``party`` leads."""
    order: str = Field(default="id", pattern=FIELD)
    """The field by whose values records are in order."""
    after: Shape | None = None
    """A page begins with what comes after this value in that order; null: at the beginning."""
    limit: Shape | None = None
    """How many records a page has at most, 200 or less; none: there are no pages."""
    single: bool = False
    """Whether there is one record, or none, which is refused with ``not_found``."""
    reply: Shape
    """The reply. Here expressions also see ``records``, ``more`` (whether another page follows) and ``currency`` (the
    company's). Amounts are decimals: ``decimal(salary, `2`)`` writes one."""

    def fits(self, effect: Effect) -> None:
        if effect is not Effect.NONE:
            raise ValueError(f"this adapter only reads; the service's effect is {effect}")


class Hrmis(Adapter[TrytonSettings, Question]):
    """One search per exchange."""

    Settings = TrytonSettings
    ServiceSettings = Question

    def __init__(self, context: Context[TrytonSettings, Question]) -> None:
        super().__init__(context)
        self._tryton = Client(context)

    async def check(self) -> None:
        await self._tryton.check()

    async def handle(self, request: Request) -> Reply:
        question, seen = self.context.services[request.service], scope(request)
        session = await self._tryton.session()
        domain: list[Any] = [[field, "=", _whole(shape.of(seen))] for field, shape in question.where.items()]
        after = None if question.after is None else _whole(question.after.of(seen))
        if after is not None:
            domain.append([question.order, ">", after])
        most = _most(question, seen)
        # One more than there may be tells whether another page follows.
        found = await self._tryton.read(
            question.model, domain, question.read, order=question.order, limit=None if most is None else most + 1
        )
        more = most is not None and len(found) > most
        if question.single and not found:
            raise Refused("not_found")
        if question.single and more:
            raise Broken("there are two such records")
        known = {"records": found[:most], "more": more, "currency": session.currency.code}
        return Reply(question.reply.of(seen | known))


def _whole(value: Any) -> Any:
    """40.0 is an integer to JSON Schema, and none to Tryton."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _most(question: Question, seen: Mapping[str, Any]) -> int | None:
    """How many records may be there, or on a page; None: any number."""
    if question.single:
        return 1
    if question.limit is None:
        return None
    wanted = _whole(question.limit.of(seen))
    if not isinstance(wanted, int) or not 1 <= wanted <= LARGEST_PAGE:
        raise Refused("rejected", "the page's limit is no number, or too large")
    return wanted
