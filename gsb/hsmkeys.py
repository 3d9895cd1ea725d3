"""Making the bus's keys in an HSM, and reading their public halves, which are all that leaves it.

For commands: one call opens a session and is done, and nothing is kept. What is read is judged by the one strict
reader of keys. A crash while a key is being made may leave it in the HSM, where its label then is taken.

Sources: PKCS#11 3.0, sections 2.1 (RSA) and 2.3 (elliptic curves, whose points are OCTET STRINGs in DER).
"""

from __future__ import annotations

import orjson

from gsb.hsm import INSTALLED, Handle, Hsm, HsmAway
from gsb.jwk import NEW_RSA_BITS, KeyUnfit, PublicKey, read_public, to_base64url
from gsb.sources import HsmTable

if INSTALLED:
    from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass
    from pkcs11.exceptions import MultipleObjectsReturned, NoSuchKey, PKCS11Error

P256 = bytes.fromhex("06082a8648ce3d030107")
"""The named curve's object identifier in DER: 1.2.840.10045.3.1.7 (RFC 5480)."""
ED25519 = bytes.fromhex("130c656477617264733235353139"), bytes.fromhex("06032b6570")
"""The curve's name in DER, which PKCS#11 3.0 wants and SoftHSM knows, and its object identifier (RFC 8410)."""


def make_key(table: HsmTable, label: str, algorithm: str) -> PublicKey:
    """Make a pair in the token whose private half never leaves it. Raises HsmAway, also where the label is taken."""
    session = Hsm(table).session(write=True)
    try:
        if list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.LABEL: label})):
            raise HsmAway(f"a key has the label {label!r} already")
        _make(session, label, algorithm)
        return _public(session, label)
    except PKCS11Error as error:
        raise HsmAway(f"it makes no key for {algorithm}: {str(error) or type(error).__name__}") from error


def public_key(table: HsmTable, label: str) -> PublicKey:
    """The public half of the key with this label. Raises HsmAway, KeyUnfit."""
    session = Hsm(table).session()
    try:
        return _public(session, label)
    except NoSuchKey as error:
        raise HsmAway(f"it has no key with the label {label!r}") from error
    except MultipleObjectsReturned as error:
        raise HsmAway(f"several keys have the label {label!r}") from error
    except PKCS11Error as error:
        raise HsmAway(f"it does not show its key {label!r}: {str(error) or type(error).__name__}") from error


def _make(session: Handle, label: str, algorithm: str) -> None:
    private = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
    if algorithm == "PS256":
        session.generate_keypair(KeyType.RSA, NEW_RSA_BITS, label=label, store=True, private_template=private)
        return
    kind, curve, how = (
        (KeyType.EC, P256, Mechanism.EC_KEY_PAIR_GEN)
        if algorithm == "ES256"
        else (KeyType.EC_EDWARDS, ED25519[0], Mechanism.EC_EDWARDS_KEY_PAIR_GEN)
    )
    parameters = session.create_domain_parameters(kind, {Attribute.EC_PARAMS: curve}, local=True)
    parameters.generate_keypair(mechanism=how, label=label, store=True, private_template=private)


def _public(session: Handle, label: str) -> PublicKey:
    """Some tokens keep no public object; what identifies a key stands in the private one as well, or cannot be had."""
    try:
        key = session.get_key(object_class=ObjectClass.PUBLIC_KEY, label=label)
    except NoSuchKey:
        key = session.get_key(object_class=ObjectClass.PRIVATE_KEY, label=label)
    return read_public(orjson.dumps(_members(key)))


def _members(key: Handle) -> dict[str, str]:
    if key.key_type == KeyType.RSA:
        numbers = {"n": key[Attribute.MODULUS], "e": key[Attribute.PUBLIC_EXPONENT]}
        return {"kty": "RSA", "alg": "PS256"} | {name: to_base64url(value) for name, value in numbers.items()}
    curve, point = bytes(key[Attribute.EC_PARAMS]), bytes(key[Attribute.EC_POINT])
    if curve == P256:
        raw = point[-65:]  # behind its two bytes of DER, which some tokens leave out
        return {"kty": "EC", "crv": "P-256", "x": to_base64url(raw[1:33]), "y": to_base64url(raw[33:])}
    if curve in ED25519:
        return {"kty": "OKP", "crv": "Ed25519", "x": to_base64url(point[-32:])}
    raise KeyUnfit("The key lies on another curve than P-256 and Ed25519.")
