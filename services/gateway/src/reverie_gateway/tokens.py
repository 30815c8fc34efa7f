"""Tokens: who signed them, how long they last, whom they name.  Pure of I/O; times are epoch seconds.

A token is a JWT.  Each algorithm has a key of its own and only the one that the header names is tried, so a public
key can never serve as a secret.  Times are checked here rather than by the library, with the caller's clock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from reverie_gateway.identity import Identity

#: How far the clock of whoever issues tokens may be ahead of ours, in seconds.
LEEWAY_S: Final = 30.0
MAX_TOKEN_CHARS: Final = 8192
MIN_KEY_BYTES: Final = 32
ADMIN_ROLE: Final = "admin"

_OWNER = re.compile(r"[\x21-\x7e]{1,128}")
#: The library checks signature, `aud`, `iss` and that these two are there; times are ours to check.
_REQUIRED: Final = ["exp", "sub"]
#: Beyond it a number of seconds is no time.
_MAX_TIME: Final = 1e12


class TokenError(Exception):
    """Why a token is refused: for the log, never for whoever sent it."""


class Verifier:
    """Turns a token into an identity."""

    def __init__(
        self,
        *,
        secret: str | None = None,
        public_key: Ed25519PublicKey | None = None,
        issuer: str | None = None,
        audience: str | None = None,
        max_age_s: float,
    ) -> None:
        keys: dict[str, Any] = {"HS256": secret, "EdDSA": public_key}
        self._keys = {algorithm: key for algorithm, key in keys.items() if key is not None}
        self._issuer = issuer
        self._audience = audience
        self._max_age_s = max_age_s

    def verify(self, token: str, *, now: float) -> Identity:
        """Whom a token names; TokenError if it is not to be believed."""
        if len(token) > MAX_TOKEN_CHARS:
            raise TokenError("it is too long")
        claims = self._claims(token)
        expires_at = self._expiry(claims, now)
        owner = claims["sub"]
        if not isinstance(owner, str) or _OWNER.fullmatch(owner) is None:
            raise TokenError("its sub is not 1 to 128 visible ASCII characters")
        admin = claims.get("admin") is True or claims.get("role") == ADMIN_ROLE
        return Identity(owner, admin, expires_at)

    def _claims(self, token: str) -> Mapping[str, Any]:
        try:
            algorithm = jwt.get_unverified_header(token).get("alg")
            if algorithm not in self._keys:
                raise TokenError("its algorithm is not one that there is a key for")
            return jwt.decode(
                token,
                self._keys[algorithm],
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                options={
                    "require": _REQUIRED,
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except jwt.PyJWTError as error:
            raise TokenError(f"{type(error).__name__}: {error}") from None
        except (ValueError, TypeError, RecursionError) as error:  # what only malformed input brings about
            raise TokenError(f"it is malformed: {type(error).__name__}") from None

    def _expiry(self, claims: Mapping[str, Any], now: float) -> float:
        expires_at = _time(claims, "exp")
        issued_at = _time(claims, "iat")
        not_before = _time(claims, "nbf")
        if expires_at is None or expires_at <= now:
            raise TokenError("it has expired")
        if issued_at is not None and issued_at > now + LEEWAY_S:
            raise TokenError("it was issued in the future")
        if not_before is not None and not_before > now + LEEWAY_S:
            raise TokenError("it does not hold yet")
        if expires_at - (now if issued_at is None else issued_at) > self._max_age_s:
            raise TokenError("it lives longer than auth.max_age_s")
        return expires_at


def issue(
    secret: str,
    *,
    owner: str,
    admin: bool = False,
    now: float,
    lifetime_s: float,
    issuer: str | None = None,
    audience: str | None = None,
) -> str:
    """An HS256 token that gateways with this secret believe; TokenError for a bad owner."""
    if _OWNER.fullmatch(owner) is None:
        raise TokenError("an owner is 1 to 128 visible ASCII characters")
    claims: dict[str, Any] = {"sub": owner, "iat": int(now), "exp": int(now) + int(lifetime_s)}
    optional = {"role": ADMIN_ROLE if admin else None, "iss": issuer, "aud": audience}
    claims |= {name: value for name, value in optional.items() if value is not None}
    return jwt.encode(claims, secret, algorithm="HS256")


def read_public_key(pem: str) -> Ed25519PublicKey:
    """An Ed25519 public key from its PEM text; ValueError if it is none."""
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("not a public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an Ed25519 key")  # noqa: TRY004  # a wrong value of the right type: text
    return key


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_TIME:
        raise TokenError(f"its {name} is no time")
    return float(value)
