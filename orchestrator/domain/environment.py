"""What of our environment a process is given that has no use for our secrets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

HUB = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")  # what loads a model from the hub
INSTALLER = ("PIP_", "UV_")  # what installs packages; an index may want a password
_WORDS = frozenset(
    {"auth", "bearer", "cookie", "cookies", "credential", "credentials", "dsn", "jwt", "key", "keys"}
    | {"pass", "passphrase", "pat", "pwd", "sas", "secrets", "webhook"}
)
_ENDS = ("accesskey", "apikey", "passwd", "password", "passwords", "privatekey", "secret", "token", "tokens")
_WITH_USER = re.compile(r"[a-z][a-z0-9+.-]*://[^/@\s]+@", re.IGNORECASE)  # user:password@, or token@
_PUBLIC = frozenset({"PWD", "OLDPWD"})  # where we are
_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"})


def without_secrets(environment: Mapping[str, str], needed: Collection[str], *, installs: bool) -> dict[str, str]:
    """All but what seems to be a secret, by its name or because it is a URL with a user in it.

    `needed`: names that are given all the same. `installs`: what pip and uv need for their index is given, too.
    """
    return {
        name: value
        for name, value in environment.items()
        if name in needed or (installs and name.startswith(INSTALLER)) or not is_secret(name, value)
    }


def is_secret(name: str, value: str) -> bool:
    """Whether the variable seems to be one. A proxy's password is none: whatever leaves the machine needs it."""
    if name in _PUBLIC:
        return False
    words = name.lower().split("_")
    if any(word in _WORDS or word.endswith(_ENDS) for word in words) or "CONNECTION_STRING" in name.upper():
        return True
    return name.upper() not in _PROXIES and _WITH_USER.search(value) is not None
