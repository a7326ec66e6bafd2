"""The tokens that open the server: read from the environment, or made and kept beside the ledger."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.domain.errors import UsageError
from orchestrator.domain.identity import ADMIN, Identity, Role
from orchestrator.store.private import made_by_others, open_to_everybody

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator.config import ServerToken

VARIABLE = "ORCHESTRATOR_HTTP_TOKEN"
_SHORTEST = 16  # characters of a token that somebody chose
_TOKEN = re.compile(r"[!-~]+")  # printable ASCII without a space: what a header can carry


@dataclass(frozen=True, slots=True)
class Credential:
    """What proves one identity. The token itself is not kept, only what is derived from it.

    `cookie` and `csrf` are values for a browser. Neither is the token, and both end to be valid when the token changes.
    """

    identity: Identity
    digest: bytes
    cookie: str
    csrf: str

    @classmethod
    def of(cls, identity: Identity, token: str) -> Credential:
        """Derive the credential from a token."""
        cookie, csrf = (
            hmac.new(token.encode(), purpose, hashlib.sha256).hexdigest() for purpose in (b"cookie", b"csrf")
        )
        return cls(identity, _digest(token), cookie, csrf)


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use the server. `chosen`: whether somebody set a token, so that other machines may be let in."""

    credentials: tuple[Credential, ...]
    chosen: bool

    def by_token(self, token: str) -> Credential | None:
        """Return the credential of a token, in a time that does not depend on how much of it is right."""
        given = _digest(token)
        return next((one for one in self.credentials if hmac.compare_digest(one.digest, given)), None)

    def by_cookie(self, cookie: str) -> Credential | None:
        """Return the credential of a cookie's value, in the same way."""
        given = _digest(cookie)
        return next((one for one in self.credentials if hmac.compare_digest(_digest(one.cookie), given)), None)


def load_access(named: Mapping[str, ServerToken], ledger: Path, environment: Mapping[str, str] = os.environ) -> Access:
    """Return who may use the server of a ledger: whoever has the main token, and those with one of `named`.

    Raises `UsageError` if a variable that the settings name is not set, or is too short to be a secret.
    """
    tokens = {Identity(ADMIN, Role.ADMIN): main_token(ledger, environment)}
    for name, entry in named.items():
        token = environment.get(entry.token_env, "")
        if not token:
            raise UsageError(f"the token of {name} is in the variable {entry.token_env}, which is not set")
        tokens[Identity(name, entry.role)] = _usable(token, entry.token_env)
    if len(set(tokens.values())) < len(tokens):
        raise UsageError("two names in [server.tokens] have the same token, so the server cannot tell them apart")
    credentials = tuple(Credential.of(identity, token) for identity, token in tokens.items())
    return Access(credentials, chosen=bool(named or environment.get(VARIABLE)))


def main_token(ledger: Path, environment: Mapping[str, str] = os.environ) -> str:
    """Return the admin's token: the one that is set, or else the one kept beside the ledger, made at its first use."""
    chosen = environment.get(VARIABLE)
    return _usable(chosen, VARIABLE) if chosen else _kept_token(_token_file(ledger), ledger)


def token_place(ledger: Path, environment: Mapping[str, str] = os.environ) -> str:
    """Return where the user finds the admin's token."""
    return VARIABLE if environment.get(VARIABLE) else str(_token_file(ledger))


def _token_file(ledger: Path) -> Path:
    return ledger.with_name(f"{ledger.name}.token")


def _kept_token(path: Path, ledger: Path) -> str:
    try:
        _make(path)
        if made_by_others(path, ledger):
            raise UsageError(f"another user of this machine made {path}, and may know its token: set {VARIABLE}")
        if open_to_everybody(path):
            raise UsageError(
                f"every user of this machine can read the token in {path}: delete the file, and another is made"
            )
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the token of the HTTP server cannot be kept in {path} ({error}); set {VARIABLE}") from error
    return _usable(token, str(path))


def _make(path: Path) -> None:
    """Write a new token whole or not at all: another process may be reading the file, or making it."""
    if path.exists():
        return
    made = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # whatever the umask
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{secrets.token_urlsafe(32)}\n")
        with suppress(FileExistsError):
            os.link(made, path)
    finally:
        made.unlink()


def _usable(token: str, where: str) -> str:
    if len(token) < _SHORTEST or not _TOKEN.fullmatch(token):
        raise UsageError(
            f"the token in {where} cannot be used: it must have at least {_SHORTEST} characters, "
            "all of them printable ASCII, and no space"
        )
    return token


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()
