"""Every error the bus can say to a caller: one class each, one table of stable codes.

The class keywords are the public contract (``code``, ``status``, ``origin``); the first line of the docstring is
the problem's title and the rest tells the caller what to do. The manual and the API description are made
from ``TABLE``, so a code that is not here does not exist. Shape on the wire: RFC 9457.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Origin = Literal["consumer", "bus", "provider"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in a body: where (JSON Pointer, RFC 6901; empty for the whole) and what, never the value."""

    pointer: str
    detail: str


TABLE: dict[str, type[Problem]] = {}
"""Every problem by its code, in the order of definition."""


class Problem(Exception):
    """Something went wrong that a caller is told about.

    ``detail`` must hold no personal value. ``faults`` are the places in the body; ``headers`` are added to the
    HTTP answer; ``extra`` are further members of the problem document.
    """

    code: ClassVar[str]
    status: ClassVar[int]
    origin: ClassVar[Origin]
    title: ClassVar[str]
    advice: ClassVar[str]

    def __init_subclass__(cls, *, code: str, status: int, origin: Origin = "consumer") -> None:
        super().__init_subclass__()
        first, _, rest = inspect.cleandoc(cls.__doc__ or "").partition("\n")
        cls.code, cls.status, cls.origin, cls.title, cls.advice = code, status, origin, first, rest.strip()
        if code in TABLE or not first or not cls.advice:
            raise TypeError(f"problem {code!r} needs its own code, a title and an advice")
        TABLE[code] = cls

    def __init__(
        self,
        detail: str = "",
        *,
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.faults = tuple(faults)
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})


# --- 1 size and shape -------------------------------------------------------------------------------------


class BadRequest(Problem, code="bad_request", status=400):
    """The request is not HTTP that this bus reads.

    Check the request line and the headers that your client sends.
    """


class PathUnknown(Problem, code="path_unknown", status=404):
    """There is nothing at this path.

    Paths are listed in the wire profile; service paths are /services/{system}/{service}/v{n}.
    """


class MethodRefused(Problem, code="method_refused", status=405):
    """This path does not take this method.

    The header Allow names the methods it takes. Services are called with POST only.
    """


class BodyTooLarge(Problem, code="body_too_large", status=413):
    """The body is larger than this service takes.

    Send less, or ask the operator for a larger limit for the service (at most 10 MiB).
    """


class MediaTypeRefused(Problem, code="media_type_refused", status=415):
    """The body is not declared as application/json.

    Send JSON with the header Content-Type: application/json.
    """


class ContentCodingRefused(Problem, code="content_coding_refused", status=415):
    """Signed messages carry no content coding.

    Send the body uncompressed, without the header Content-Encoding.
    """


class HeaderRepeated(Problem, code="header_repeated", status=400):
    """A header that must stand once stands twice.

    Send GSB-Signature, Idempotency-Key, Content-Type and Prefer at most once each.
    """


class IdempotencyKeyMalformed(Problem, code="idempotency_key_malformed", status=400):
    """The header Idempotency-Key is not a string of 1 to 128 visible ASCII characters.

    Send a structured-field string such as "8e03978e-40d5-43dd-bc93-6894a57f9324"; the bare form is taken too.
    """


# --- 2 who signed -----------------------------------------------------------------------------------------


class SignatureMissing(Problem, code="signature_missing", status=401):
    """The header GSB-Signature is missing.

    Sign the call as the wire profile says.
    """


class SignatureTooLarge(Problem, code="signature_too_large", status=400):
    """The header GSB-Signature is larger than 8 KiB.

    Leave out what the wire profile does not ask for.
    """


class SignatureMalformed(Problem, code="signature_malformed", status=400):
    """The header GSB-Signature is not a compact JWS in strict form.

    Three parts of unpadded base64url; header and claims are JSON objects without duplicate members.
    """


class SignatureHeaderRefused(Problem, code="signature_header_refused", status=400):
    """The JOSE header does not hold exactly alg, kid and typ.

    Remove crit, b64, jku, jwk, x5u, x5c and everything else.
    """


class SignatureTypeRefused(Problem, code="signature_type_refused", status=400):
    """The JOSE header's typ is not gsb-req+jwt.

    A request is signed with typ gsb-req+jwt; a reply can never be used as a request.
    """


class AlgorithmRefused(Problem, code="algorithm_refused", status=401):
    """The signature's algorithm is not one of ES256, Ed25519 (EdDSA) and PS256, or not the key's own.

    Sign with the algorithm for which the key was registered.
    """


class KeyUnknown(Problem, code="key_unknown", status=401):
    """No such key is registered for this issuer.

    kid is the RFC 7638 thumbprint of a key that the operator has registered for iss.
    """


class KeyNotActive(Problem, code="key_not_active", status=401):
    """The key is registered but not in force now.

    Use a key that is active, or retiring and not yet retired.
    """


class KeyRevoked(Problem, code="key_revoked", status=401):
    """The key is revoked.

    Sign with another key; ask the operator why, if you did not revoke it yourself.
    """


class SignatureInvalid(Problem, code="signature_invalid", status=401):
    """The signature does not verify with the registered key.

    Check that you sign the very bytes you send, with the private key that belongs to kid.
    """


class ClaimMissing(Problem, code="claim_missing", status=400):
    """A claim that the wire profile requires is missing.

    The member claim of this problem names it.
    """


class ClaimInvalid(Problem, code="claim_invalid", status=400):
    """A claim has the wrong type or form, or is not known.

    The member claim of this problem names it.
    """


class AudienceMismatch(Problem, code="audience_mismatch", status=401):
    """The claim aud is not this bus.

    Each environment has its own id; sign for the one you call.
    """


class TokenExpired(Problem, code="token_expired", status=401):
    """The signature is too old.

    Sign each call anew and send it at once; compare your clock with the member now.
    """


class TokenNotYetValid(Problem, code="token_not_yet_valid", status=401):
    """The claim iat lies in the future.

    Compare your clock with the member now.
    """


class TokenLifetime(Problem, code="token_lifetime", status=401):
    """The claims iat and exp are not 1 to 60 seconds apart.

    Set exp to iat plus at most 60.
    """


# --- 3 bound to this request ------------------------------------------------------------------------------


class MethodMismatch(Problem, code="method_mismatch", status=401):
    """The signature is for another method.

    Sign the method that you send.
    """


class TargetMismatch(Problem, code="target_mismatch", status=401):
    """The signature is for another target.

    target_uri is one of the bus's public base URLs followed by the raw path and query, byte for byte.
    """


class DigestMismatch(Problem, code="digest_mismatch", status=401):
    """The signature is for another body.

    content_digest is sha-256=:base64: (RFC 9530) of the body as sent, of an empty one too.
    """


class ContentTypeMismatch(Problem, code="content_type_mismatch", status=401):
    """The signature is for another content type.

    content_type is the header Content-Type as sent, and absent when there is no body.
    """


class IdempotencyKeyMismatch(Problem, code="idempotency_key_mismatch", status=401):
    """The signature is for another idempotency key.

    idempotency_key stands exactly when the header does, as the string without the header's quotes.
    """


# --- 4 seen before ----------------------------------------------------------------------------------------


class Replayed(Problem, code="replayed", status=409):
    """This jti was used before.

    Sign again with a new random jti; to repeat an exchange safely keep its Idempotency-Key.
    """


class IdempotencyKeyReused(Problem, code="idempotency_key_reused", status=422):
    """This Idempotency-Key belongs to an exchange with other content.

    Use a new key for a new exchange; a repeat must have the same target, purpose, sub, case and body.
    """


# --- 5 to 8 which service, may the caller, is the body right ------------------------------------------------


class ServiceUnknown(Problem, code="service_unknown", status=404):
    """There is no such service.

    GET /services, signed, lists what you may use.
    """


class GrantMissing(Problem, code="grant_missing", status=403):
    """No agreement grants you this service.

    Ask the provider for a data-sharing agreement.
    """


class PurposeNotGranted(Problem, code="purpose_not_granted", status=403):
    """Your agreements grant this service for other purposes only.

    Use a purpose code of a grant in force.
    """


class AgreementNotInForce(Problem, code="agreement_not_in_force", status=403):
    """The agreement that grants this is not in force now.

    Check its validity with the provider.
    """


class SubRequired(Problem, code="sub_required", status=403):
    """The grant requires the claim sub.

    Name the person or system on whose behalf you act.
    """


class CaseRequired(Problem, code="case_required", status=403):
    """The grant requires the claim case.

    Name the case file for which you ask.
    """


class RateExceeded(Problem, code="rate_exceeded", status=429):
    """You have used up the rate that your agreement grants.

    Wait as long as the header Retry-After says.
    """


class IdempotencyKeyMissing(Problem, code="idempotency_key_missing", status=400):
    """This service changes something, so it needs an Idempotency-Key.

    Choose a random key for each exchange, send it as the header and sign it as a claim.
    """


class BodyMalformed(Problem, code="body_malformed", status=400):
    """The body is not strict JSON.

    UTF-8, no duplicate members, no integers beyond 2^53, at most 64 levels deep.
    """


class BodyInvalid(Problem, code="body_invalid", status=422):
    """The body does not fit the service's request schema.

    The member errors lists every place and what is wrong there.
    """


# --- exchanges, as their owner reads them -------------------------------------------------------------------


class ExchangeUnknown(Problem, code="exchange_unknown", status=404):
    """You have no such exchange.

    An exchange is visible only to the agency that began it.
    """


class AgreementEnded(Problem, code="agreement_ended", status=403):
    """The agreement under which this exchange was made is no longer in force.

    The outcome's state and effect are told, its body is not; ask the provider for a new agreement.
    """


# --- operators ----------------------------------------------------------------------------------------------


class OperatorRequired(Problem, code="operator_required", status=403):
    """Only an operator may do this.

    Sign with an operator's key.
    """


class RoleMissing(Problem, code="role_missing", status=403):
    """Your roles do not allow this act.

    The member role of this problem names the one it needs.
    """


class ReasonMissing(Problem, code="reason_missing", status=400):
    """Every administrative act needs a reason.

    Give the parameter reason: 4 to 500 characters that an auditor will understand.
    """


class ActInvalid(Problem, code="act_invalid", status=422):
    """The parameters of this act are wrong.

    The member errors says which and why.
    """


class StateConflict(Problem, code="state_conflict", status=409):
    """The exchange is not in a state in which this can be done.

    Look at it again: resolve takes unknown ones, replay and close take held ones.
    """


# --- outcomes -------------------------------------------------------------------------------------------------


class SystemRefused(Problem, code="system_refused", status=422, origin="provider"):
    """The core system said no.

    The member reason is the system's declared error code; its adapter's manual explains it.
    """


class ReplyInvalid(Problem, code="reply_invalid", status=502, origin="provider"):
    """The core system's reply does not fit the service's reply schema.

    Nothing can be done by the caller; the provider must mend its system or adapter.
    """


class ExchangeExpired(Problem, code="exchange_expired", status=504, origin="provider"):
    """The exchange could not be begun before it expired.

    Nothing took effect. Try again later with a new Idempotency-Key.
    """


class AuthorityWithdrawn(Problem, code="authority_withdrawn", status=403, origin="bus"):
    """The agreement ended or the key was revoked before the exchange began.

    Nothing took effect. Renew the agreement or the key, then send a new exchange.
    """


class ClosedByOperator(Problem, code="closed_by_operator", status=502, origin="bus"):
    """An operator closed this exchange as failed.

    The member effect says whether it took effect; ask the operator before you repeat it under a new key.
    """


# --- the bus itself -----------------------------------------------------------------------------------------


class Busy(Problem, code="busy", status=503, origin="bus"):
    """The bus has as many calls in flight as it takes.

    Repeat after the time in the header Retry-After, with a new jti and the same Idempotency-Key.
    """


class Draining(Problem, code="draining", status=503, origin="bus"):
    """This node is stopping.

    Repeat at once at another node, or after the time in the header Retry-After.
    """


class StoreUnavailable(Problem, code="store_unavailable", status=503, origin="bus"):
    """The bus cannot write to its store.

    Nothing was promised. Repeat later with a new jti and the same Idempotency-Key.
    """


class InternalError(Problem, code="internal_error", status=500, origin="bus"):
    """The bus made a mistake.

    Repeat with a new jti and the same Idempotency-Key; give the operator the member instance.
    """
