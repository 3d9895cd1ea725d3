"""Citizens' complaints in Roundup over its REST interface: each filed once, and how it stands.

Roundup can make sure that one POST is not done twice, but not that two tries of one exchange are not: its tokens are
used up without a trace of what they led to. So each try claims the exchange first, by an item whose name Roundup keeps
unique, and files the complaint together with that claim. A crash in between leaves a claim without a complaint; the
token was made to expire, so after that time it is certain that none will come, and the next try may begin.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, urlsplit

from pydantic import Field

from gsb.sdk import Adapter, Broken, HttpReply, NoSettings, Refused, Reply, Request, Unavailable, acted
from gsb_adapters.rest import BasicSettings, items, member, said_at, text

State = Literal["RECEIVED", "IN_PROGRESS", "RESOLVED"]
CLASSIC: dict[str, State] = {
    "unread": "RECEIVED",
    "deferred": "IN_PROGRESS",
    "chatting": "IN_PROGRESS",
    "need-eg": "IN_PROGRESS",
    "in-progress": "IN_PROGRESS",
    "testing": "IN_PROGRESS",
    "done-cbb": "RESOLVED",
    "resolved": "RESOLVED",
}


class FeedbackSettings(BasicSettings):
    """``[settings]`` of a system with the adapter ``feedback``. The URL ends with the tracker's name, and complaints
    are filed in the name of ``user``."""

    web: str | None = Field(default=None, pattern=r"^https?://[^/?#@\s]+/([^?#\s]*/)?$")
    """The address that the tracker has for itself (``web`` in its ``config.ini``), if it is reached by another one:
    it takes no request that was meant for elsewhere."""
    claims: str = Field(default="keyword", pattern=r"^[a-z_]+$")
    """Class whose items claim an exchange, and the issues' multilink to it. Its key must be ``name``."""
    hold: int = Field(default=30, ge=1, le=3600)
    """Seconds that one try may take. If it came to nothing, the next begins after twice as long: so much again is left
    to Roundup for filing what came at the last moment."""
    states: dict[str, State] = CLASSIC
    """What the tracker's statuses mean; those of its classic template unless stated."""


class Claim(NamedTuple):
    """That a try of an exchange has begun, at this time of Roundup's clock."""

    id: str
    began: datetime


class Feedback(Adapter[FeedbackSettings, NoSettings]):
    """``submit`` and ``status``."""

    Settings = FeedbackSettings

    async def check(self) -> None:
        _data(await self._send("GET", "status", {"@page_size": 1}))

    async def handle(self, request: Request) -> Reply:
        match request.service.split("/")[1]:
            case "submit":
                return await self._submit(request)
            case "status":
                return await self._status(request.body["complaint"])
            case other:
                raise Broken(f"there is no service {other}")

    async def find(self, request: Request) -> Reply | None:
        claims, _ = await self._claims(request.exchange)
        return await self._filed(claims)

    async def _submit(self, request: Request) -> Reply:
        claims, now = await self._claims(request.exchange)
        if (filed := await self._filed(claims)) is not None:
            return filed
        left = max((claim.began.timestamp() for claim in claims), default=0.0) + self._given_up_after - now.timestamp()
        if left > 0:
            raise Unavailable("another try of this exchange may be at work", sent=True, after=left)
        # In this order: whoever finds the claim knows that the token expires no later than so long after it.
        lifetime = {"lifetime": self.context.settings.hold}
        token = text(_data(await self._send("POST", "issue/@poe", content=lifetime)), "link").rpartition("/")[2]
        name = f"{request.exchange}.{len(claims) + 1}"
        answer = await self._send("POST", self.context.settings.claims, content={"name": name})
        if answer.status == 409:
            raise Unavailable("another try of this exchange has begun", sent=True, after=self._given_up_after)
        claim = Claim(text(_data(answer), "id"), now)
        with acted():  # the claim arrived
            return await self._file(request.body, claim, token)

    async def _file(self, body: Any, claim: Claim, token: str) -> Reply:
        settings = self.context.settings
        contact = f"\n\nContact: {body['contact']}" if "contact" in body else ""
        message = {"content": body["text"] + contact, "author": settings.user}
        issue = {
            "title": body["subject"],
            "messages": [text(_data(await self._send("POST", "msg", content=message)), "id")],
            settings.claims: [claim.id],
        }
        answer = await self._send("POST", f"issue/@poe/{quote(token, safe='')}", content=issue)
        if answer.status != 400:
            return Reply({"complaint": text(_data(answer), "id")})
        # A token that was used or has expired: the request was repeated on its way, or took too long.
        if (filed := await self._filed([claim])) is not None:
            return filed
        if b"POE token" in answer.body:
            raise Unavailable("the token had expired", sent=True, after=self._given_up_after)
        raise answer.error()

    @property
    def _given_up_after(self) -> float:
        return 2.0 * self.context.settings.hold

    async def _claims(self, exchange: str) -> tuple[list[Claim], datetime]:
        """Those of an exchange, and what time it is, both as Roundup says."""
        answer = await self._send("GET", self.context.settings.claims, {"name": exchange, "@fields": "name,creation"})
        found = items(_data(answer), "collection")
        return [Claim(text(each, "id"), _when(text(each, "creation"))) for each in found], said_at(answer)

    async def _filed(self, claims: list[Claim]) -> Reply | None:
        if not claims:
            return None
        named = {self.context.settings.claims: ",".join(claim.id for claim in claims)}
        found = items(_data(await self._send("GET", "issue", named)), "collection")
        return Reply({"complaint": text(found[0], "id")}) if found else None

    async def _status(self, complaint: str) -> Reply:
        wanted = {"@fields": "status,creation,activity", "@verbose": 2}
        answer = await self._send("GET", f"issue/{quote(complaint, safe='')}", wanted)
        if answer.status == 404 and b"no such issue" in answer.body:
            raise Refused("not_found")
        issue = member(_data(answer), "attributes")
        state = self.context.settings.states.get(text(member(issue, "status"), "name"))
        if state is None:
            raise Broken("the complaint has a status that the settings do not explain")
        times = {
            name: _when(text(issue, kept)) for name, kept in (("received_at", "creation"), ("changed_at", "activity"))
        }
        shown = {name: f"{when:%Y-%m-%dT%H:%M:%SZ}" for name, when in times.items()}
        return Reply({"complaint": complaint, "state": state, **shown})

    async def _send(self, method: str, item: str, query: Any = None, *, content: Any = None) -> HttpReply:
        settings = self.context.settings
        web = settings.web or f"{settings.url}/"
        origin = urlsplit(web)
        headers = {
            **settings.signed_in(),
            "X-Requested-With": "rest",
            "Host": origin.netloc,
            "Origin": f"{origin.scheme}://{origin.netloc}",
            "Referer": web,
        }
        url = f"{settings.url}/rest/data/{item}"
        return await self.context.http.request(method, url, headers=headers, params=query, json=content)


def _data(answer: HttpReply) -> Any:
    """No status is a refusal here: no citizen is to hear no for the bus's own password and rights, or for settings."""
    if answer.status not in (200, 201):
        raise answer.error()
    return member(answer.json(), "data")


def _when(written: str) -> datetime:
    try:
        return datetime.strptime(written, "%Y-%m-%d.%H:%M:%S").replace(tzinfo=UTC)
    except ValueError as error:
        raise Broken("a time is not written as Roundup writes it") from error
