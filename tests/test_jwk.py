"""Keys: the vectors of the standards, and everything that must not pass for a key."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gsb import jwk
from gsb.jwk import (
    KeyUnfit,
    from_base64url,
    generate,
    public_of,
    read_ed25519,
    read_private,
    read_public,
    to_base64url,
)

# RFC 7515, appendix A.3.1, and RFC 8037, appendices A.1 and A.2.
EC_KEY = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
}
OKP_KEY = {
    "kty": "OKP",
    "crv": "Ed25519",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
}
# RFC 7638, section 3.1.
RSA_PUBLIC = {
    "kty": "RSA",
    "n": (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV"
        "4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7"
        "d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF4"
        "4-csFCur-kEgU8awapJzKnqDKgw"
    ),
    "e": "AQAB",
}
EC_PUBLIC = {name: value for name, value in EC_KEY.items() if name != "d"}
OKP_PUBLIC = {name: value for name, value in OKP_KEY.items() if name != "d"}
RSA_KEY: dict[str, Any] = orjson.loads(generate("PS256"))


def public(members: dict[str, Any]) -> jwk.PublicKey:
    return read_public(orjson.dumps(members))


def unfit(members: dict[str, Any], *, private: bool = False) -> str:
    with pytest.raises(KeyUnfit) as caught:
        (read_private if private else read_public)(orjson.dumps(members))
    return str(caught.value)


def uint(value: int) -> str:
    return to_base64url(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def test_rfc_7515_a_3() -> None:
    header = "eyJhbGciOiJFUzI1NiJ9"
    payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    message = f"{header}.{payload}".encode()
    assert public(EC_PUBLIC).verify("ES256", message, from_base64url(signature))
    assert not public(EC_PUBLIC).verify("ES256", message + b"x", from_base64url(signature))


def test_rfc_8037_a_4() -> None:
    message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
    signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    key = read_private(orjson.dumps(OKP_KEY))
    assert to_base64url(key.sign(message)) == signature
    assert key.public.verify("EdDSA", message, from_base64url(signature))
    assert key.public.verify("Ed25519", message, from_base64url(signature))


def test_thumbprints_of_rfc_7638_and_rfc_8037() -> None:
    assert public(RSA_PUBLIC).kid == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    assert public(OKP_PUBLIC).kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize("algorithm", jwk.ALGORITHMS)
def test_a_new_key_signs_what_its_public_half_verifies(algorithm: str) -> None:
    data = generate(algorithm)
    key = read_private(data)
    published = read_public(jwk.public_of(data))
    assert key.algorithm == algorithm
    assert published == key.public
    assert published.kid == key.kid == published.jwk["kid"]
    assert published.jwk["alg"] == algorithm
    assert published.jwk["use"] == "sig"
    assert {"d", "p", "q"}.isdisjoint(published.jwk)
    signature = key.sign(b"message")
    assert published.verify(algorithm, b"message", signature)
    assert not published.verify(algorithm, b"massage", signature)
    assert not published.verify(algorithm, b"message", signature[:-1])
    assert not published.verify(algorithm, b"message", signature + b"\0")
    assert not published.verify(algorithm, b"message", b"")
    assert not published.verify("none", b"message", signature)


def test_a_private_key_does_not_show_itself() -> None:
    for members in (EC_KEY, OKP_KEY, RSA_KEY):
        key = read_private(orjson.dumps(members))
        assert members["d"] not in f"{key!r} {key.public!r} {key.public.jwk}"


def test_keys_can_stand_in_sets() -> None:
    assert len({public(EC_PUBLIC), public(EC_PUBLIC), public(OKP_PUBLIC)}) == 2


def test_each_kind_has_its_own_algorithms() -> None:
    assert public(EC_PUBLIC).algorithms == {"ES256"}
    assert public(OKP_PUBLIC).algorithms == {"Ed25519", "EdDSA"}
    assert public(RSA_PUBLIC).algorithms == {"PS256"}
    assert public(OKP_PUBLIC | {"alg": "EdDSA"}).algorithms == {"Ed25519", "EdDSA"}


def test_es256_is_64_bytes_and_not_asn_1() -> None:
    key = read_private(orjson.dumps(EC_KEY))
    assert {len(key.sign(bytes([n]))) for n in range(50)} == {64}
    signer = ec.derive_private_key(int.from_bytes(from_base64url(EC_KEY["d"]), "big"), ec.SECP256R1())
    asn_1 = signer.sign(b"message", ec.ECDSA(hashes.SHA256()))
    assert not key.public.verify("ES256", b"message", asn_1)
    good = key.sign(b"message")
    assert key.public.verify("ES256", b"message", good)
    assert not key.public.verify("ES256", b"message", good[:32] + b"\0" + good[32:]), "the same r and s, longer"
    assert not key.public.verify("ES256", b"message", bytes(64)), "the signature of CVE-2022-21449"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"kty": "oct", "k": "AAAA"}, "private"),
        ({"kty": "oct"}, "symmetric"),
        ({"kty": "ec"}, "kty"),
        ({"kty": None}, "kty"),
        ({"kty": ["EC"]}, "kty"),
        ({"crv": "P-384"}, "crv"),
        ({"crv": "secp256k1"}, "crv"),
        ({"x": EC_KEY["x"] + "="}, "x"),
        ({"x": EC_KEY["x"] + "\n"}, "x"),
        ({"x": EC_KEY["x"][:-1] + "V"}, "x"),  # a stray bit behind the last byte
        ({"x": to_base64url(from_base64url(EC_KEY["x"]) + b"\0")}, "x"),
        ({"x": to_base64url(from_base64url(EC_KEY["x"])[:-1])}, "x"),
        ({"x": "é" * 43}, "x"),
        ({"x": 7}, "x"),
        ({"x": None}, "x"),
        ({"x": EC_KEY["y"]}, "not a point"),
        ({"x": to_base64url(bytes(32)), "y": to_base64url(bytes(32))}, "not a point"),
        ({"use": "enc"}, "use"),
        ({"use": None}, "use"),
        ({"key_ops": ["sign"]}, "key_ops"),
        ({"key_ops": []}, "key_ops"),
        ({"key_ops": "verify"}, "key_ops"),
        ({"key_ops": ["verify", "verify"]}, "key_ops"),
        ({"key_ops": ["verify", 1]}, "key_ops"),
        ({"alg": "ES384"}, "alg"),
        ({"alg": "HS256"}, "alg"),
        ({"alg": "none"}, "alg"),
        ({"alg": ["ES256"]}, "alg"),
        ({"kid": "2011-04-29"}, "thumbprint"),
        ({"kid": 7}, "thumbprint"),
        ({"d": EC_KEY["d"]}, "private"),
        ({"d": None}, "private"),
    ],
)
def test_unfit_public_keys(change: dict[str, Any], word: str) -> None:
    assert public(EC_PUBLIC | {"use": "sig", "key_ops": ["verify"], "alg": "ES256"})
    assert word in unfit(EC_PUBLIC | change)


def test_members_that_are_nobodys_business_are_passed_over() -> None:
    assert public(EC_PUBLIC | {"ext": True, "x5t": "AAAA"}).jwk.keys() == {
        "kty",
        "crv",
        "x",
        "y",
        "kid",
        "alg",
        "use",
    }


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'"k"', b"\xef\xbb\xbf{}"])
def test_what_is_no_json_object_is_no_key(data: bytes) -> None:
    with pytest.raises(KeyUnfit):
        read_public(data)


def test_a_member_that_stands_twice_is_refused() -> None:
    data = orjson.dumps(EC_PUBLIC)[:-1] + b',"use":"enc","use":"sig"}'
    with pytest.raises(KeyUnfit, match="/use"):
        read_public(data)


def test_a_required_member_that_is_missing_is_named() -> None:
    for members in (EC_PUBLIC, OKP_PUBLIC, RSA_PUBLIC):
        for name in members:
            assert name in unfit({other: value for other, value in members.items() if other != name})


def test_rsa_keys_that_are_too_weak_or_too_costly() -> None:
    n = int.from_bytes(from_base64url(RSA_PUBLIC["n"]), "big")
    for bits in (1024, 2040):
        small = rsa.generate_private_key(public_exponent=65_537, key_size=bits).public_key().public_numbers().n
        assert f"{bits} bits" in unfit(RSA_PUBLIC | {"n": uint(small)})
    assert "bits" in unfit(RSA_PUBLIC | {"n": uint((1 << 8200) + 1)})
    assert "odd" in unfit(RSA_PUBLIC | {"n": uint(n - 1)})
    assert "leading zeros" in unfit(RSA_PUBLIC | {"n": to_base64url(b"\0" + from_base64url(RSA_PUBLIC["n"]))})
    for e in (1, 3, 65_536, 65_538, 2**32 + 1):
        assert " e " in unfit(RSA_PUBLIC | {"e": uint(e)})
    assert "alg" in unfit(RSA_PUBLIC | {"alg": "RS256"})


def test_ed25519_keys_of_small_order_are_refused_since_anyone_can_sign_for_them() -> None:
    # R is the neutral element and S is 0: this verifies whenever the hash is a multiple of the key's order.
    forged = (1).to_bytes(32, "little") + bytes(32)
    for y in jwk._SMALL_ORDER:
        for sign in (0, 1 << 255):
            x = (y | sign).to_bytes(32, "little")
            assert any(accepts(x, forged, bytes([n])) for n in range(250)), "this point is not of small order"
            assert "safe" in unfit(OKP_PUBLIC | {"x": to_base64url(x)})
    assert len(jwk._SMALL_ORDER) == 5
    beyond_the_prime = (2**255 - 18).to_bytes(32, "little")
    assert "safe" in unfit(OKP_PUBLIC | {"x": to_base64url(beyond_the_prime)})


def accepts(x: bytes, signature: bytes, message: bytes) -> bool:
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(x).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def test_ed448_is_not_ed25519() -> None:
    assert "crv" in unfit({"kty": "OKP", "crv": "Ed448", "x": to_base64url(bytes(57))})


def test_a_public_key_does_not_sign() -> None:
    for members in (EC_PUBLIC, OKP_PUBLIC, RSA_PUBLIC):
        assert "public key" in unfit(members, private=True)


@pytest.mark.parametrize("algorithm", ["ES256", "Ed25519", "PS256"])
def test_halves_of_different_keys_are_refused(algorithm: str) -> None:
    one, other = orjson.loads(generate(algorithm)), orjson.loads(generate(algorithm))
    names = {"x", "y", "n", "e"} & one.keys()
    mixed = one | {name: other[name] for name in names} | {"kid": other["kid"]}
    assert "private" in unfit(mixed, private=True)


@pytest.mark.parametrize(
    "change",
    [
        {"d": to_base64url(bytes(32))},
        {"d": to_base64url(b"\xff" * 32)},
        {"d": EC_KEY["d"] + "="},
        {"d": to_base64url(from_base64url(EC_KEY["d"])[:-1])},
        {"d": None},
        {"key_ops": ["verify"]},
        {"use": "enc"},
        {"alg": "ES512"},
    ],
)
def test_unfit_private_ec_keys(change: dict[str, Any]) -> None:
    assert read_private(orjson.dumps(EC_KEY | {"key_ops": ["sign"], "use": "sig"})).algorithm == "ES256"
    assert EC_KEY["d"] not in unfit(EC_KEY | change, private=True)


@pytest.mark.parametrize("name", ["d", "p", "q", "dp", "dq", "qi"])
def test_rsa_private_keys_are_whole_and_consistent(name: str) -> None:
    unfit({other: value for other, value in RSA_KEY.items() if other != name}, private=True)
    unfit(RSA_KEY | {name: uint(int.from_bytes(from_base64url(RSA_KEY[name]), "big") ^ 2)}, private=True)


def test_rsa_keys_of_many_primes_are_refused() -> None:
    assert "two primes" in unfit(RSA_KEY | {"oth": []}, private=True)


def test_a_key_of_a_log_is_one_that_signs_checkpoints() -> None:
    key, signing = read_ed25519(orjson.dumps(OKP_KEY))
    assert key.public.verify("Ed25519", b"a checkpoint", signing.sign(b"a checkpoint"))
    with pytest.raises(KeyUnfit, match="for ES256, and a log is signed with Ed25519"):
        read_ed25519(orjson.dumps(EC_KEY))
    with pytest.raises(KeyUnfit, match="public key where a private one is wanted"):
        read_ed25519(public_of(generate("Ed25519")))


def test_no_key_for_an_algorithm_that_does_not_exist() -> None:
    for algorithm in ("RS256", "HS256", "none", "ES384", ""):
        with pytest.raises(KeyUnfit):
            generate(algorithm)


def test_base64url_is_canonical() -> None:
    for length in range(70):
        data = bytes(range(200, 200 + length % 50)) + bytes(length // 50)
        assert from_base64url(to_base64url(data)) == data
    for text in ("A", "AB", "AA==", "AA=", "A A", "AA\n", "+/AA", "AAA.", "AB$C", "é", "\udc80AA", "AAAAA"):
        with pytest.raises(ValueError, match=r"base64url|ASCII"):
            from_base64url(text)
