"""The environment for child processes that have no use for our secrets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

HUB = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")  # needed to load a model from the hub
INSTALLER = ("PIP_", "UV_")  # needed to install packages; an index may require a password
_WORDS = frozenset(
    {"auth", "bearer", "cookie", "cookies", "credential", "credentials", "dsn", "jwt", "key", "keys"}
    | {"pass", "passphrase", "pat", "pwd", "sas", "secrets", "webhook"}
)
_ENDS = ("accesskey", "apikey", "passwd", "password", "passwords", "privatekey", "secret", "token", "tokens")
_WITH_USER = re.compile(r"[a-z][a-z0-9+.-]*://[^/@\s]+@", re.IGNORECASE)  # user:password@, or token@
_PUBLIC = frozenset({"PWD", "OLDPWD"})  # working directories, not passwords
_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"})


def without_secrets(environment: Mapping[str, str], needed: Collection[str], *, installs: bool) -> dict[str, str]:
    """Return the environment without variables that look like secrets, by name or as a URL that contains a user.

    `needed`: names that are kept in any case. `installs`: keep the variables of pip and uv as well.
    """
    return {
        name: value
        for name, value in environment.items()
        if name in needed or (installs and name.startswith(INSTALLER)) or not is_secret(name, value)
    }


def is_secret(name: str, value: str) -> bool:
    """Whether the variable looks like a secret. A proxy's URL is not one: all outgoing requests need its password."""
    if name in _PUBLIC:
        return False
    words = name.lower().split("_")
    if any(word in _WORDS or word.endswith(_ENDS) for word in words) or "CONNECTION_STRING" in name.upper():
        return True
    return name.upper() not in _PROXIES and _WITH_USER.search(value) is not None
