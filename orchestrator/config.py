"""FLOOR 1: the settings file as a frozen value; read once, at the composition root."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping  # noqa: TC003 - pydantic reads annotations at run time
from pathlib import Path

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.domain.errors import UsageError


class Settings(BaseModel):
    """Every key of config.toml; config.example.toml shows them with their defaults.

    `db`: the ledger, a path or `sqlite:///PATH`; "" is the one of this user. `busy_seconds`: how long a write waits for
    another process's. `endpoints`: endpoints by name, each its `kind` and its settings; looked at when one is used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    db: str = ""
    busy_seconds: float = Field(default=30.0, gt=0)
    endpoints: Mapping[str, Mapping[str, object]] = {}

    @property
    def ledger(self) -> str:
        """Where the ledger is: the same for every command of this user, from any folder."""
        return self.db or str(platformdirs.user_data_path("orchestrator", appauthor=False) / "ledger.db")


def load_settings(config: Path | None, db: str | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Options win over ORCHESTRATOR_DB and ORCHESTRATOR_CONFIG, these over the file. `UsageError` in one line."""
    named = config or environment.get("ORCHESTRATOR_CONFIG")
    path = Path(named) if named else platformdirs.user_config_path("orchestrator", appauthor=False) / "config.toml"
    settings = _read(path) if named or path.exists() else Settings()
    chosen = db or environment.get("ORCHESTRATOR_DB")
    return settings.model_copy(update={"db": chosen}) if chosen else settings


def _read(path: Path) -> Settings:
    try:
        return Settings.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"config file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"config file {path} is not valid TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = ", ".join(Settings.model_fields)
            raise UsageError(f"config file {path}: there is no setting {key!r}; there is {known}") from error
        raise UsageError(f"config file {path}: {key}: {first['msg']}, not {first['input']!r}") from error
