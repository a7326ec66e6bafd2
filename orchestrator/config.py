"""FLOOR 1: the settings file as a frozen value; read once, at the composition root."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping  # noqa: TC003 - pydantic reads annotations at run time
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from orchestrator.domain.errors import UsageError
from orchestrator.domain.moment import seconds_of

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class FailureWebhook(BaseModel):
    """A webhook, as a job's `Webhook(url, secret_env=...)`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    secret_env: str | None = None


class Serve(BaseModel):
    """What `orchestrator serve` does. `jobs`: folders whose job files' schedules it fires. `runs`: how many at once.

    A folder is relative to that of the settings file. `on_failure`: a command or a webhook that is told of a queued run
    that failed, where its job names nobody or its job file cannot be loaded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    jobs: tuple[Path, ...] = ()
    runs: int = Field(default=4, ge=1, le=1000)
    on_failure: tuple[str, ...] | FailureWebhook = ()

    @field_validator("jobs")
    @classmethod
    def _from_the_file(cls, jobs: tuple[Path, ...], info: ValidationInfo) -> tuple[Path, ...]:
        folder = (info.context or {}).get("folder", Path())
        try:
            jobs = tuple(job.expanduser() for job in jobs)
        except RuntimeError as error:  # pydantic knows ValueError only
            raise ValueError("there is no home folder that ~ could stand for") from error
        return tuple(Path(os.path.abspath(folder / job)) for job in jobs)


class DailyBudget(BaseModel):
    """`[budget]`: dollars and seconds that all endpoints of the ledger may be awake in a day of UTC, for all runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_cost_per_day: float | None = Field(default=None, ge=0)
    max_awake_per_day: float | None = Field(default=None, ge=0)


class Retention(BaseModel):
    """`[retention]`: how long runs, and what only they have, are kept after their end: 90d, 12w.

    "never": nothing is deleted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep: str = "90d"

    @field_validator("keep")
    @classmethod
    def _is_an_age(cls, keep: str) -> str:
        if keep != "never":
            seconds_of(keep)
        return keep

    @property
    def seconds(self) -> float | None:
        """None where nothing is ever deleted."""
        return None if self.keep == "never" else seconds_of(self.keep)


class Settings(BaseModel):
    """Every key of config.toml; config.example.toml shows them with their defaults.

    `db`: the ledger, a path or `sqlite:///PATH`; "" is the one of this user. `busy_seconds`: how long a write waits for
    another process's. `endpoints`: endpoints by name, each its `kind` and its settings; looked at when one is used.
    `budget`: what they may come to in a day. `retention`: how long old runs are kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    db: str = ""
    busy_seconds: float = Field(default=30.0, gt=0)
    endpoints: Mapping[str, Mapping[str, object]] = {}
    budget: DailyBudget = DailyBudget()
    retention: Retention = Retention()
    serve: Serve = Serve()

    @property
    def ledger(self) -> str:
        """Where the ledger is: the same for every command of this user, from any folder.

        `UsageError` for a user who has no home, when it is nowhere named.
        """
        if self.db:
            return self.db
        try:
            return str(platformdirs.user_data_path("orchestrator", appauthor=False) / "ledger.db")
        except RuntimeError as error:
            raise UsageError("this user has no home folder, so name the ledger: --db PATH, or set HOME") from error


def load_settings(config: Path | None, db: str | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Options win over ORCHESTRATOR_DB and ORCHESTRATOR_CONFIG, these over the file. `UsageError` in one line."""
    named = config or environment.get("ORCHESTRATOR_CONFIG")
    path = Path(named) if named else _of_this_user()
    settings = _read(path) if path is not None and (named or path.exists()) else Settings()
    chosen = db or environment.get("ORCHESTRATOR_DB")
    return settings.model_copy(update={"db": chosen}) if chosen else settings


def _of_this_user() -> Path | None:
    """The user's settings file, whether it is there or not; None for a user who has no home."""
    try:
        return platformdirs.user_config_path("orchestrator", appauthor=False) / "config.toml"
    except RuntimeError:
        return None


def _read(path: Path) -> Settings:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        return Settings.model_validate(found, context={"folder": path.absolute().parent})
    except OSError as error:
        raise UsageError(f"config file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"config file {path} is not valid TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise UsageError(f"config file {path}: there is no setting {key!r}; there is {_beside(first)}") from error
        raise UsageError(f"config file {path}: {key}: {first['msg']}, not {first['input']!r}") from error


def _beside(error: ErrorDetails) -> str:
    """The settings that there are where the unknown one was written."""
    known = Settings.model_fields
    for name in error["loc"][:-1]:
        inner = known[str(name)].annotation
        known = inner.model_fields if isinstance(inner, type) and issubclass(inner, BaseModel) else {}
    return ", ".join(known)
