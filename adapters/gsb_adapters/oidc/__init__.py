"""A national digital identity in OpenID Connect: is a citizen's token good, and is what is said of the citizen so?

It asks the issuer (introspection, RFC 7662; userinfo) and tells yes, no or unknown; nothing that the issuer knows of a
person is handed on. Only the issuer's document and keys are kept, in memory. A crash means nothing: nothing acts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus, urlencode

from gsb.sdk import Adapter, Broken, Context, Refused, Reply, Request, basic
from gsb_adapters.oidc.issuer import Document, Issuer, belongs, header_of, read
from gsb_adapters.oidc.predicates import assured, held, holds, matches
from gsb_adapters.oidc.settings import OidcService, OidcSettings


class Oidc(Adapter[OidcSettings, OidcService]):
    """Introspection and verification at one issuer."""

    Settings = OidcSettings
    ServiceSettings = OidcService

    def __init__(self, context: Context[OidcSettings, OidcService]) -> None:
        super().__init__(context)
        self._issuer = Issuer(context.settings, context.http, context.clock)

    async def check(self) -> None:
        await self._introspect("gsb-check")  # a token that no issuer has given out

    async def handle(self, request: Request) -> Reply:
        service, body = self.context.services[request.service], request.body
        if service.answers == "introspection":
            said = await self._introspect(body["token"])
            if said is None:
                return Reply({"active": False})
            reply: Document = {"active": True, **self._held(body, said)}
        else:
            said = await self._verified(body)
            names = {each: service.claims.get(each, each) for each in body.get("claims", {})}
            answers = {each: held(matches(body["claims"][each], said, name)) for each, name in names.items()}
            reply = {"verified": True, "claims": answers}
        if "assurance" in body:
            reply["assurance"] = held(assured(said, body["assurance"], self.context.settings.levels))
        return Reply(reply)

    def _held(self, body: Mapping[str, Any], said: Document) -> Document:
        """Of a token that is active: is it meant for the bus, and which of the scopes does it hold?"""
        reply: Document = {"audience": held(holds(said.get("aud"), self.context.settings.meant_for))}
        if "scopes" in body:
            scopes = said["scope"].split() if isinstance(said.get("scope"), str) else None
            reply["scopes"] = [{"scope": each, "held": held(holds(scopes, each))} for each in body["scopes"]]
        return reply

    async def _verified(self, body: Mapping[str, Any]) -> Document:
        """What the issuer says of the citizen whose tokens these are. Raises Refused if they are not good.

        The request schema lets no ID token in without an access token or a nonce: alone it might be an access token in
        disguise, about whose revocation nobody would be asked.
        """
        said: Document = {}
        if "id_token" in body:
            said = await self._issuer.claims(body["id_token"])
            if "nonce" in body and said.get("nonce") != body["nonce"]:
                raise Refused("nonce_invalid")
        if "access_token" in body:
            if "id_token" in body and not belongs(said, body["id_token"], body["access_token"]):
                raise Refused("token_invalid", "the tokens are of two log-ins")
            said = _one_person(said, await self._active(body["access_token"]))
            if body.get("claims"):
                said = _one_person(said, await self._userinfo(body["access_token"]))
        return said

    async def _active(self, token: str) -> Document:
        """What is known of an access token that holds. One that can be read is read first: what is forged gets no
        further. Raises Refused."""
        said = {} if header_of(token) is None else await self._issuer.claims(token)
        more = await self._introspect(token)
        if more is None:
            raise Refused("token_inactive")
        said = _one_person(said, more)
        if not holds(said.get("aud"), self.context.settings.meant_for):
            raise Refused("audience_invalid")
        if not isinstance(said.get("sub"), str):
            raise Refused("token_invalid", "it is no person's")
        return said

    async def _introspect(self, token: str) -> Document | None:
        """What the issuer says of a token that holds; None of any other (RFC 7662, section 2.2)."""
        settings = self.context.settings
        known = basic(quote_plus(settings.client), quote_plus(settings.secret.read()))  # RFC 6749, section 2.3.1
        headers = known | {"Content-Type": "application/x-www-form-urlencoded"}
        form = urlencode({"token": token, "token_type_hint": "access_token"}).encode()
        said = read(await self._issuer.ask("POST", "introspection_endpoint", headers, form))
        if not isinstance(said.get("active"), bool) or said.get("iss", settings.name) != settings.name:
            raise Broken("the issuer does not say whether the token holds")
        return said if said["active"] and self._issuer.in_time(said) else None

    async def _userinfo(self, token: str) -> Document:
        """What the issuer says of the citizen to whoever holds the token (OpenID Connect Core, section 5.3)."""
        answer = await self._issuer.ask("GET", "userinfo_endpoint", {"Authorization": f"Bearer {token}"})
        if answer.status == 401:  # it was revoked a moment ago
            raise Refused("token_inactive")
        if answer.status == 403:  # it holds, and is not good for this (RFC 6750, section 3.1)
            return {}
        said = read(answer)
        if not isinstance(said.get("sub"), str):
            raise Broken("the issuer does not say of whom it speaks")
        return said


def _one_person(first: Document, then: Document) -> Document:
    """What both say. Raises Refused if they speak of two people."""
    if "sub" in first and "sub" in then and first["sub"] != then["sub"]:
        raise Refused("token_invalid", "the tokens are of two people")
    return first | then
