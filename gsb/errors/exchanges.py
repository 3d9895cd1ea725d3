"""What a service, an exchange, an operator's act or the bus itself may answer instead of what was asked for."""

from __future__ import annotations

from gsb.errors.problem import Problem

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


class EntryUnknown(Problem, code="entry_unknown", status=404):
    """This exchange has no such entry.

    The query is nothing, or entry= and the hash of an entry, as the time line of GET /exchanges/{id} tells it.
    """


class AgreementEnded(Problem, code="agreement_ended", status=403):
    """The agreement under which this exchange was made is no longer in force.

    The outcome's state and effect are told, its body is not; ask the provider for a new agreement.
    """


class ReplyGone(Problem, code="reply_gone", status=410):
    """The outcome of this exchange was erased, or is older than the bus keeps bodies.

    The outcome's state and effect are told, its body is not there any more. The exchange is not performed again.
    """


class ReplyUnreadable(Problem, code="reply_unreadable", status=500, origin="bus"):
    """What the bus has stored of this exchange is damaged and cannot be read.

    The outcome's state and effect are told, its body is lost. Repeating helps nothing, and nothing is performed again;
    ask the operator, or the provider, what the core system knows.
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

    The member reason is one of those that the description of the service lists, with what each means.
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
    """The bus has as many calls in flight, or connections, as it takes: in all, or from your agency.

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


class LogUnavailable(Problem, code="log_unavailable", status=503, origin="bus"):
    """The bus cannot read the files of its evidence log.

    No proof is lost: they can be made again. Repeat later with a new jti.
    """


class RecorderBehind(Problem, code="recorder_behind", status=503, origin="bus"):
    """The bus cannot prove new exchanges fast enough, or not at all.

    Nothing was promised. Repeat after the time in the header Retry-After, with a new jti and the same Idempotency-Key.
    """


class WritesWithheld(Problem, code="writes_withheld", status=503, origin="bus"):
    """The bus was restored from a backup, and writes are not admitted before an operator says so.

    Nothing was promised. What does not act is answered. Repeat after the time in the header Retry-After, with a new jti
    and the same Idempotency-Key.
    """


class SigningUnavailable(Problem, code="signing_unavailable", status=503, origin="bus"):
    """None of the bus's own keys is in force, or the HSM that holds it is away, so it could sign no answer.

    No signed call is taken; what was taken before goes on. Repeat later with a new jti and the same Idempotency-Key.
    """


class InternalError(Problem, code="internal_error", status=500, origin="bus"):
    """The bus made a mistake.

    Repeat with a new jti and the same Idempotency-Key; give the operator the member instance.
    """
