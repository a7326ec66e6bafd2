"""The Hugging Face token: found where `huggingface_hub` finds it, and never shown."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from anyio import to_thread

from orchestrator.domain.errors import UsageError

HF_TOKEN = "HF_TOKEN"
_OLD_NAME = "HUGGING_FACE_HUB_TOKEN"
_PRINTABLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Token:
    """A token, which `repr` does not show. `source`: where it comes from. `remedy`: what to do if it is not valid."""

    value: str = field(repr=False)
    source: str
    remedy: str

    def __post_init__(self) -> None:
        if not _PRINTABLE.fullmatch(self.value):
            raise UsageError(f"what {self.source} holds is not a token: {self.remedy}")

    @property
    def headers(self) -> dict[str, str]:
        """The headers that authenticate a request."""
        return {"Authorization": f"Bearer {self.value}"}


async def find_token(token_env: str = HF_TOKEN) -> Token:
    """Return the token from `HF_TOKEN`, the older `HUGGING_FACE_HUB_TOKEN`, or the file that `hf auth login` writes.

    If `token_env` is another variable, only that variable is read. Raises `UsageError` if there is no token.
    """
    remedy = f"set the environment variable {token_env}"
    if token_env == HF_TOKEN:
        remedy += ", or run `hf auth login`"
    for variable in (token_env, _OLD_NAME) if token_env == HF_TOKEN else (token_env,):
        if value := cleaned(os.environ.get(variable, "")):
            return Token(value, f"the environment variable {variable}", remedy)
    if token_env == HF_TOKEN:
        path = _login_file()
        if value := cleaned(await to_thread.run_sync(_read, path)):
            return Token(value, str(path), remedy)
    raise UsageError(f"there is no Hugging Face token: {remedy}")


def _login_file() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME", os.path.join("~", ".cache"))
    home = os.environ.get("HF_HOME", os.path.join(cache, "huggingface"))
    path = os.environ.get("HF_TOKEN_PATH", os.path.join(home, "token"))
    return Path(os.path.expandvars(path)).expanduser()


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise UsageError(f"cannot read the Hugging Face token in {path}: {error.strerror}") from error


def cleaned(value: str) -> str:
    """Return the value without line ends and surrounding spaces, which often come with copying."""
    return value.replace("\r", "").replace("\n", "").strip()
