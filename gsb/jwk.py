"""Keys as JSON Web Keys: one strict reader, and signing and verifying with what it read.

Three kinds and nothing else: EC P-256 (ES256), Ed25519 (Ed25519, alias EdDSA) and RSA of at least 2048 bits (PS256).
Whoever holds a key object holds one that fits its purpose; everything doubtful is refused here, once, at load.
It knows nothing of owners, states and times of keys (those are the registry's) and does no I/O. A crash in here
is a defect of this module: every input is either read or refused with ``KeyUnfit``.

Sources: RFC 7517 (JWK), RFC 7518 (ES256, PS256 and their parameters), RFC 8037 and RFC 9864 (Ed25519),
RFC 7638 (thumbprint).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from gsb import strictjson
from gsb.errors import BodyMalformed

ALGORITHMS = ("ES256", "Ed25519", "EdDSA", "PS256")
"""The algorithms of wire profile 1; EdDSA is an alias of Ed25519."""
RSA_BITS = range(2048, 8193)
"""Shorter moduli are unsafe; longer ones make each verification a burden."""
RSA_EXPONENTS = range(65_537, 2**32)
NEW_RSA_BITS = 3072
SET_LIMIT = 16
"""Keys of a set: what a signer needs while it goes from one to the next, several times over."""

_SHA256 = hashes.SHA256()
_ECDSA = ec.ECDSA(_SHA256)
_PSS = padding.PSS(mgf=padding.MGF1(_SHA256), salt_length=32)
_SECRET = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
_PRIME_25519 = 2**255 - 19
_OF_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER = {0, 1, _PRIME_25519 - 1, _OF_ORDER_8, _PRIME_25519 - _OF_ORDER_8}
"""The y coordinates of the eight points of small order: for such a key anyone finds signatures that verify."""


class KeyUnfit(ValueError):
    """This is not a key that the wire profile knows; one sentence says why, and never shows the key."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key that is fit to verify with."""

    kid: str
    """Its RFC 7638 thumbprint (SHA-256, base64url)."""
    algorithms: frozenset[str]
    """The algorithms with which it may be used."""
    jwk: dict[str, str] = field(hash=False)
    """What may be published: its public members, ``kid``, ``alg`` and ``use``."""
    check: Callable[[bytes, bytes], None] = field(repr=False, compare=False)
    """Raises ``InvalidSignature`` unless (signature, message) is of this key."""

    def verify(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        """Whether this key made this signature of this message, with an algorithm that is its own."""
        if algorithm not in self.algorithms:
            return False
        try:
            self.check(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key that is fit to sign with."""

    kid: str
    algorithm: str
    public: PublicKey
    sign: Callable[[bytes], bytes] = field(repr=False, compare=False)
    """Sign a message; the signature in the form of JWS (ES256: 64 bytes, r and s)."""


def read_public(data: bytes) -> PublicKey:
    """Read a public JWK. Raises ``KeyUnfit``, also for a private one: those are not to be passed around."""
    jwk = _members(data)
    if _SECRET & jwk.keys():
        raise KeyUnfit("This is a private key where a public one is wanted.")
    return _public(jwk, "verify")


def read_set(data: bytes) -> tuple[dict[str, PublicKey], list[str]]:
    """Read a JWK Set: its keys by kid, and why others in it are left out (RFC 7517, section 5, wants that).

    Raises ``KeyUnfit`` for what is no set, has more than 16 keys, or holds only such as cannot be used.
    """
    members = _members(data).get("keys")
    if not isinstance(members, list):
        raise KeyUnfit("There is no list of keys.")
    if len(members) > SET_LIMIT:
        raise KeyUnfit(f"There are {len(members)} keys, more than {SET_LIMIT}.")
    keys: dict[str, PublicKey] = {}
    left_out = []
    for index, jwk in enumerate(members):
        try:
            key = read_public(orjson.dumps(jwk))
            keys[key.kid] = key
        except KeyUnfit as error:
            left_out.append(f"keys.{index}: {error}")
    if left_out and not keys:
        raise KeyUnfit(f"None of its keys can be used ({left_out[0]}).")
    return keys, left_out


def read_private(data: bytes) -> PrivateKey:
    """Read a private JWK. Raises ``KeyUnfit``, also when its private and public members do not belong together."""
    jwk = _members(data)
    public = _public(jwk, "sign")
    if "d" not in jwk:
        raise KeyUnfit("This is a public key where a private one is wanted.")
    try:
        sign = _SIGNERS[jwk["kty"]](jwk)
    except ValueError as error:
        if isinstance(error, KeyUnfit):
            raise
        raise KeyUnfit("The key's private members are not a private key.") from None
    key = PrivateKey(public.kid, public.jwk["alg"], public, sign)
    if not public.verify(key.algorithm, b"", key.sign(b"")):
        raise KeyUnfit("The key's private members do not belong to its public ones.")
    return key


def read_ed25519(data: bytes) -> tuple[PrivateKey, ed25519.Ed25519PrivateKey]:
    """Read a private JWK of the kind that signs checkpoints, which are no JWS. Raises ``KeyUnfit``."""
    key = read_private(data)
    if key.algorithm not in ("Ed25519", "EdDSA"):
        raise KeyUnfit(f"The key is for {key.algorithm}, and a log is signed with Ed25519.")
    return key, _okp_private(_members(data))


def generate(algorithm: str) -> bytes:
    """A new private JWK for this algorithm, as JSON with ``kid``, ``alg`` and ``use``. Raises ``KeyUnfit``."""
    if algorithm == "ES256":
        members = _ec_members(ec.generate_private_key(ec.SECP256R1()))
    elif algorithm in ("Ed25519", "EdDSA"):
        members = _okp_members(ed25519.Ed25519PrivateKey.generate())
    elif algorithm == "PS256":
        members = _rsa_members(rsa.generate_private_key(public_exponent=65_537, key_size=NEW_RSA_BITS))
    else:
        raise KeyUnfit(f"The algorithm is not one of {', '.join(ALGORITHMS)}.")
    public = _public(members | {"alg": algorithm}, "sign")
    return orjson.dumps(public.jwk | members, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def public_of(private: bytes) -> bytes:
    """The public JWK of a private one, as JSON. Raises ``KeyUnfit``."""
    return orjson.dumps(read_private(private).public.jwk, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def to_base64url(data: bytes) -> str:
    """base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def from_base64url(text: str) -> bytes:
    """The bytes of canonical base64url. Raises ValueError for padding, white space and stray bits.

    The decoder underneath passes over much of that; but only the canonical form is written again as it was read.
    """
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise ValueError("not base64url") from None
    if to_base64url(data) != text:
        raise ValueError("not canonical base64url")
    return data


def _members(data: bytes) -> Mapping[str, Any]:
    try:
        jwk = strictjson.loads(data)
    except BodyMalformed as error:
        where = ", ".join(f"{fault.pointer or 'document'}: {fault.detail}" for fault in error.faults)
        raise KeyUnfit(f"The key is not strict JSON ({where}).") from None
    if not isinstance(jwk, dict):
        raise KeyUnfit("The key is not a JSON object.")
    return jwk


def _public(jwk: Mapping[str, Any], operation: str) -> PublicKey:
    if jwk.get("kty") == "oct":
        raise KeyUnfit("The key is symmetric: whoever could verify could also sign.")
    reader = _READERS.get(jwk["kty"]) if isinstance(jwk.get("kty"), str) else None
    if reader is None:
        raise KeyUnfit("The key's kty is not EC, OKP or RSA.")
    names, algorithms, check = reader(jwk)
    identity = {name: jwk[name] for name in ("kty", *names)}
    kid = thumbprint(identity)
    algorithm = jwk.get("alg", algorithms[0])
    if algorithm not in algorithms:
        raise KeyUnfit(f"The key's alg is not {' or '.join(algorithms)}, which is what a key of its kind is for.")
    if jwk.get("use", "sig") != "sig":
        raise KeyUnfit("The key's use is not sig.")
    _check_operations(jwk.get("key_ops", [operation]), operation)
    if jwk.get("kid", kid) != kid:
        raise KeyUnfit(f"The key's kid is not its RFC 7638 thumbprint, which is {kid}.")
    published = identity | {"kid": kid, "alg": algorithm, "use": "sig"}
    return PublicKey(kid, frozenset(algorithms), published, check)


def _check_operations(operations: object, wanted: str) -> None:
    """RFC 7517, section 4.3."""
    if not isinstance(operations, list) or not all(isinstance(name, str) for name in operations):
        raise KeyUnfit("The key's key_ops is not a list of strings.")
    if len(set(operations)) < len(operations) or wanted not in operations:
        raise KeyUnfit(f"The key's key_ops does not hold {wanted}, or holds something twice.")


def thumbprint(identity: Mapping[str, str]) -> str:
    """RFC 7638, section 3: the SHA-256 of a key's required public members, in base64url."""
    return to_base64url(hashlib.sha256(orjson.dumps(identity, option=orjson.OPT_SORT_KEYS)).digest())


Check = Callable[[bytes, bytes], None]
Read = tuple[tuple[str, ...], tuple[str, ...], Check]
"""What is read of a key: the members that identify it, its algorithms, and its check of a signature."""


def _octets(jwk: Mapping[str, Any], name: str, length: int) -> bytes:
    value = jwk.get(name)
    try:
        data = from_base64url(value) if isinstance(value, str) else b""
    except ValueError:
        data = b""
    if len(data) != length:
        raise KeyUnfit(f"The key's {name} is not {length} bytes in base64url without padding.")
    return data


def _integer(jwk: Mapping[str, Any], name: str) -> int:
    """RFC 7518, section 2, Base64urlUInt: big-endian in the fewest bytes."""
    value = jwk.get(name)
    try:
        data = from_base64url(value) if isinstance(value, str) else b""
    except ValueError:
        data = b""
    if not data or data[0] == 0:
        raise KeyUnfit(f"The key's {name} is not a positive integer in base64url without padding or leading zeros.")
    return int.from_bytes(data, "big")


def _read_ec(jwk: Mapping[str, Any]) -> Read:
    key = _ec_public(jwk)

    def check(signature: bytes, message: bytes) -> None:
        # RFC 7518, section 3.4: r and s of 32 bytes each, where the library below speaks ASN.1.
        if len(signature) != 64:
            raise InvalidSignature
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        key.verify(encode_dss_signature(r, s), message, _ECDSA)

    return ("crv", "x", "y"), ("ES256",), check


def _ec_public(jwk: Mapping[str, Any]) -> ec.EllipticCurvePublicKey:
    if jwk.get("crv") != "P-256":
        raise KeyUnfit("The key's crv is not P-256.")
    point = b"\x04" + _octets(jwk, "x", 32) + _octets(jwk, "y", 32)
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError:
        raise KeyUnfit("The key's x and y are not a point of P-256.") from None


def _sign_ec(jwk: Mapping[str, Any]) -> Callable[[bytes], bytes]:
    key = ec.derive_private_key(int.from_bytes(_octets(jwk, "d", 32), "big"), ec.SECP256R1())

    def sign(message: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(message, _ECDSA))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    return sign


def _ec_members(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    numbers = key.private_numbers()
    public = numbers.public_numbers
    values = {"x": public.x, "y": public.y, "d": numbers.private_value}
    return {"kty": "EC", "crv": "P-256"} | {
        name: to_base64url(value.to_bytes(32, "big")) for name, value in values.items()
    }


def _read_okp(jwk: Mapping[str, Any]) -> Read:
    if jwk.get("crv") != "Ed25519":
        raise KeyUnfit("The key's crv is not Ed25519.")
    data = _octets(jwk, "x", 32)
    y = int.from_bytes(data, "little") & (1 << 255) - 1
    if y >= _PRIME_25519 or y in _SMALL_ORDER:
        raise KeyUnfit("The key's x is not a point of Ed25519 that is safe to verify with.")
    key = ed25519.Ed25519PublicKey.from_public_bytes(data)
    return ("crv", "x"), ("Ed25519", "EdDSA"), key.verify


def _sign_okp(jwk: Mapping[str, Any]) -> Callable[[bytes], bytes]:
    return _okp_private(jwk).sign


def _okp_private(jwk: Mapping[str, Any]) -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.from_private_bytes(_octets(jwk, "d", 32))


def _okp_members(key: ed25519.Ed25519PrivateKey) -> dict[str, str]:
    x, d = key.public_key().public_bytes_raw(), key.private_bytes_raw()
    return {"kty": "OKP", "crv": "Ed25519", "x": to_base64url(x), "d": to_base64url(d)}


def _rsa_numbers(jwk: Mapping[str, Any]) -> rsa.RSAPublicNumbers:
    n, e = _integer(jwk, "n"), _integer(jwk, "e")
    if n.bit_length() not in RSA_BITS or n % 2 == 0:
        raise KeyUnfit(
            f"The key's n has {n.bit_length()} bits; an RSA modulus here is odd and has "
            f"{RSA_BITS.start} to {RSA_BITS.stop - 1}."
        )
    if e not in RSA_EXPONENTS or e % 2 == 0:
        raise KeyUnfit("The key's e is not an odd number from 65537 to 2^32.")
    return rsa.RSAPublicNumbers(e, n)


def _read_rsa(jwk: Mapping[str, Any]) -> Read:
    key = _rsa_numbers(jwk).public_key()

    def check(signature: bytes, message: bytes) -> None:
        key.verify(signature, message, _PSS, _SHA256)

    return ("n", "e"), ("PS256",), check


def _sign_rsa(jwk: Mapping[str, Any]) -> Callable[[bytes], bytes]:
    numbers = rsa.RSAPrivateNumbers(
        **{name: _integer(jwk, name) for name in ("p", "q", "d")},
        dmp1=_integer(jwk, "dp"),
        dmq1=_integer(jwk, "dq"),
        iqmp=_integer(jwk, "qi"),
        public_numbers=_rsa_numbers(jwk),
    )
    if "oth" in jwk:
        raise KeyUnfit("The key has more than two primes.")
    key = numbers.private_key()
    return lambda message: key.sign(message, _PSS, _SHA256)


def _rsa_members(key: rsa.RSAPrivateKey) -> dict[str, str]:
    numbers = key.private_numbers()
    public = numbers.public_numbers
    values = {"n": public.n, "e": public.e, "d": numbers.d, "p": numbers.p, "q": numbers.q}
    values |= {"dp": numbers.dmp1, "dq": numbers.dmq1, "qi": numbers.iqmp}
    return {"kty": "RSA"} | {
        name: to_base64url(value.to_bytes((value.bit_length() + 7) // 8, "big")) for name, value in values.items()
    }


_READERS: dict[str, Callable[[Mapping[str, Any]], Read]] = {"EC": _read_ec, "OKP": _read_okp, "RSA": _read_rsa}
_SIGNERS = {"EC": _sign_ec, "OKP": _sign_okp, "RSA": _sign_rsa}
