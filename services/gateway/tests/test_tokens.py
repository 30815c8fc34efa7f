"""Which tokens are believed, decided without any server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from reverie_gateway.identity import Identity
from reverie_gateway.tokens import TokenError, Verifier, issue, read_public_key

SECRET = "a secret of at least thirty-two bytes"
PRIVATE = Ed25519PrivateKey.generate()
PEM = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
NOW = 1_800_000_000.0
CLAIMS = {"sub": "alice", "iat": NOW, "exp": NOW + 600}


def signed(claims=CLAIMS, *, secret=SECRET, algorithm="HS256", **changes):
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    return jwt.encode(claims, secret, algorithm=algorithm)


def by_hand(header, claims, secret):
    """A token that no decent library would make."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    signature = hmac.new(secret, b".".join(parts), hashlib.sha256).digest() if secret else b""
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def verifier(**options):
    return Verifier(**({"secret": SECRET, "max_age_s": 3600.0} | options))


BOTH = {"public_key": read_public_key(PEM)}


@pytest.mark.parametrize(
    ("token", "options"),
    [
        (signed(), {}),
        (signed(secret=PRIVATE, algorithm="EdDSA"), {"secret": None, **BOTH}),
        (signed(), BOTH),
        (signed(aud="reverie", iss="us"), {"audience": "reverie", "issuer": "us"}),
        (signed(aud=["other", "reverie"]), {"audience": "reverie"}),
        (signed(nbf=NOW + 20, iat=NOW + 20), {}),
        (signed(iat=None), {}),
        (signed(iat=NOW - 3000, exp=NOW + 600), {}),
    ],
)
def test_a_token_that_was_signed_for_us_and_still_holds_is_believed(token, options):
    assert verifier(**options).verify(token, now=NOW).owner == "alice"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "a.b.c",
        "\x00" * 10,
        signed(secret="another secret of more than thirty-two bytes"),
        signed(algorithm="HS512"),
        by_hand({"alg": "none"}, CLAIMS, None),
        by_hand({"alg": "None"}, CLAIMS, SECRET.encode()),
        by_hand({"alg": "HS256"}, CLAIMS, PEM.encode()),
        by_hand({"alg": "EdDSA"}, CLAIMS, SECRET.encode()),
        by_hand({"alg": "HS256", "crit": ["b64"], "b64": False}, CLAIMS, SECRET.encode()),
        by_hand({"alg": ["HS256"]}, CLAIMS, SECRET.encode()),
        by_hand({"alg": "HS256"}, ["alice"], SECRET.encode()),
        signed(exp=NOW),
        signed(exp=None),
        signed(sub=None),
        signed(exp=NOW + 4000),
        signed(iat=None, exp=NOW + 4000),
        signed(iat=NOW - 3500, exp=NOW + 200),
        signed(iat=NOW + 60),
        signed(nbf=NOW + 60),
        signed(exp=True),
        signed(exp=f"{NOW + 600}"),
        signed(exp=float("inf")),
        signed(exp=float("nan")),
        signed(exp=10**400),
        signed(iat=-1),
        signed(aud="somebody else"),
        signed(sub="x" * 9000),
        *(
            by_hand({"alg": "HS256"}, {**CLAIMS, "sub": sub}, SECRET.encode())
            for sub in ("", "a b", "a\n", "é", "x" * 129, 7, None, ["alice"])
        ),
    ],
)
def test_no_other_token_is_believed(token):
    with pytest.raises(TokenError):
        verifier(**BOTH).verify(token, now=NOW)


@pytest.mark.parametrize(
    "claims", [{}, {"aud": "other"}, {"aud": "reverie"}, {"aud": "reverie", "iss": "them"}]
)
def test_audience_and_issuer_must_be_those_that_are_set(claims):
    with pytest.raises(TokenError):
        verifier(audience="reverie", issuer="us").verify(signed(**claims), now=NOW)


def test_a_changed_byte_anywhere_makes_a_token_worthless():
    token = signed()
    for place in range(len(token) - 1):  # the last character of a signature holds bits that do not count
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        with pytest.raises(TokenError):
            verifier().verify(changed, now=NOW)


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_refused_in_the_same_way(text):
    with pytest.raises(TokenError):
        verifier(**BOTH).verify(text, now=NOW)


@pytest.mark.parametrize(
    ("claims", "admin"),
    [
        ({}, False),
        ({"role": "admin"}, True),
        ({"admin": True}, True),
        ({"role": "administrator"}, False),
        ({"admin": "true"}, False),
        ({"admin": 1}, False),
        ({"role": ["admin"]}, False),
    ],
)
def test_an_administrator_is_who_his_token_calls_so(claims, admin):
    assert verifier().verify(signed(**claims), now=NOW) == Identity("alice", admin, NOW + 600)


def test_what_we_issue_is_believed_until_it_ends():
    token = issue(SECRET, owner="bob", admin=True, now=NOW, lifetime_s=60, issuer="us", audience="reverie")
    believing = verifier(issuer="us", audience="reverie")
    assert believing.verify(token, now=NOW + 59) == Identity("bob", True, NOW + 60)
    with pytest.raises(TokenError):
        believing.verify(token, now=NOW + 60)


def test_only_an_ed25519_key_serves_as_the_public_key():
    other = X25519PrivateKey.generate().public_key()
    pem = other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    for text in (pem, "-----BEGIN PUBLIC KEY-----\nxx\n-----END PUBLIC KEY-----\n", ""):
        with pytest.raises(ValueError, match="not a"):
            read_public_key(text)
