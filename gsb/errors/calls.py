"""What is wrong with a call before anybody asks what it wants: steps 1 to 4 of admission."""

from __future__ import annotations

from gsb.errors.problem import Problem

# --- 1 size and shape -------------------------------------------------------------------------------------


class BadRequest(Problem, code="bad_request", status=400):
    """The request is not HTTP that this bus reads.

    Check the request line and the headers that your client sends.
    """


class RequestTooSlow(Problem, code="request_too_slow", status=408):
    """The request did not arrive in time.

    Send head and body at once, on a connection that carries them; then repeat with a new jti.
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


class KeySetUnavailable(Problem, code="key_set_unavailable", status=503):
    """The keys that this issuer publishes could not be read for too long, so nobody can say whether this is one.

    Nothing was promised. Repeat after the time in the header Retry-After, with a new jti and the same Idempotency-Key;
    see that your key set can be read where the operator has it from.
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
