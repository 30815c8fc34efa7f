"""The token that this machine's user shows to a server, and tokens that an operator makes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from reverie_gateway.settings import AuthSettings
from reverie_gateway.tokens import TokenError, issue
from reverie_launcher.exits import ExitCode, Failure
from reverie_launcher.services import CONFIG, PREFIX, SERVICES, SHARED_SECTIONS
from reverie_runtime.settings import SettingsError, load_settings

TOKEN_VARIABLE: Final = "REVERIE_TOKEN"
#: As whom `reverie up` makes the first picture where it needs a token: the one user of a server without a key.
OWN_NAME: Final = "local"
OWN_LIFETIME_S: Final = 600.0
_AUTH = f"{PREFIX}AUTH__"


class _Section(msgspec.Struct, frozen=True):
    auth: AuthSettings = AuthSettings()


def find_token(file: Path | None, environment: Mapping[str, str]) -> str | None:
    """The token in the file, else in REVERIE_TOKEN; None if there is none.  Failure if the file cannot be read."""
    if file is None:
        return environment.get(TOKEN_VARIABLE, "").strip() or None
    try:
        token = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError):
        raise Failure(ExitCode.USAGE, f"{file} cannot be read.", advice="Check --token-file.") from None
    if not token:
        raise Failure(ExitCode.USAGE, f"{file} is empty.", advice="Check --token-file.")
    return token


def make_token(
    environment: Mapping[str, str], config: Path | None, *, owner: str, admin: bool, lifetime_s: float
) -> str:
    """A token for servers that have the same `auth.key`; Failure where there is no key or it would be refused."""
    auth = _auth_settings(environment, config)
    if auth.key is None:
        raise Failure(
            ExitCode.USAGE,
            "There is no auth.key to sign a token with.",
            advice="Set REVERIE_AUTH__KEY, or name the TOML file that has it with --config.",
        )
    if lifetime_s > auth.max_age_s:
        raise Failure(
            ExitCode.USAGE,
            f"A token may live for {auth.max_age_s / 60:g} minutes (auth.max_age_s).",
            advice="Give fewer --minutes.",
        )
    return _issue(auth, auth.key, owner=owner, admin=admin, lifetime_s=lifetime_s)


def own_token(environment: Mapping[str, str], config: Path | None) -> str | None:
    """What `reverie up` itself shows to its gateway; None where it needs nothing, or cannot sign."""
    auth = _auth_settings(environment, config)
    if auth.key is None:
        return None
    lifetime_s = min(OWN_LIFETIME_S, auth.max_age_s)
    return _issue(auth, auth.key, owner=OWN_NAME, admin=False, lifetime_s=lifetime_s)


def _issue(auth: AuthSettings, key: str, *, owner: str, admin: bool, lifetime_s: float) -> str:
    try:
        return issue(
            key,
            owner=owner,
            admin=admin,
            now=time.time(),
            lifetime_s=lifetime_s,
            issuer=auth.issuer,
            audience=auth.audience,
        )
    except TokenError:
        raise Failure(
            ExitCode.USAGE,
            f"{owner!r} cannot be an owner.",
            advice="Give 1 to 128 visible ASCII characters with --sub.",
        ) from None


def _auth_settings(environment: Mapping[str, str], config: Path | None) -> AuthSettings:
    file = config or environment.get(CONFIG) or None
    others = {*SHARED_SECTIONS, *(section for service in SERVICES for section in service.sections)}
    own = {name: value for name, value in environment.items() if name.startswith(_AUTH)}
    try:
        resolved = load_settings(
            _Section,
            config=Path(file) if file else None,
            environ=own,
            tolerated_sections=others - {"auth"},
        )
    except SettingsError as error:
        raise Failure(ExitCode.USAGE, f"{error}.", advice="Correct it.") from None
    return resolved.auth
