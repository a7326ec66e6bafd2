"""The settings file as a frozen value. It is read once, at the composition root."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence  # noqa: TC003 - pydantic reads annotations at run time
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, ValidationInfo, field_validator

from orchestrator.domain.errors import UsageError
from orchestrator.domain.http_address import HttpAddress
from orchestrator.domain.http_client import ChosenClient  # noqa: TC001 - pydantic reads annotations at run time
from orchestrator.domain.identity import ADMIN, Role
from orchestrator.domain.moment import seconds_of

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class FailureWebhook(BaseModel):
    """A webhook with the settings of a job's `Webhook(url, secret_env=...)`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    secret_env: str | None = None


class Serve(BaseModel):
    """`[serve]`: settings of `orchestrator serve`.

    `jobs`: folders whose job files' schedules it fires, relative to the folder of the settings file. `runs`: how many
    runs it executes at once. `on_failure`: a command or a webhook to notify when a queued run fails and its job has no
    `on_failure` or cannot be loaded.
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
        except RuntimeError as error:  # pydantic expects a ValueError
            raise ValueError("there is no home folder to replace ~") from error
        return tuple(Path(os.path.abspath(folder / job)) for job in jobs)


class DailyBudget(BaseModel):
    """`[budget]`: dollars and seconds awake that all runs of the ledger together may spend in a day (UTC)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_cost_per_day: float | None = Field(default=None, ge=0)
    max_awake_per_day: float | None = Field(default=None, ge=0)


class Retention(BaseModel):
    """`[retention]`: how long runs, and the answers that only they need, are kept after their end: 90d, 12w.

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
        """How long runs are kept; None if nothing is ever deleted."""
        return None if self.keep == "never" else seconds_of(self.keep)


class ServerToken(BaseModel):
    """`[server.tokens.NAME]`: what the bearer of one token may do. The token is in a variable, never in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    token_env: str = Field(min_length=1)


class Server(BaseModel):
    """`[server]`: settings of the HTTP server.

    `http`: HOST:PORT where `orchestrator serve` listens; "" is nowhere. `hosts`: further values of the header Host that
    it answers to, such as a proxy's `batch.example.org`. `max_file_bytes`: the largest file that it takes.
    `max_batch_requests`: the most lines of a batch, and the most inputs of one that asks for embeddings. `connections`:
    how many clients may be connected at once. `tokens`: by name, who may use it beside whoever has the main token.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    http: str = ""
    hosts: tuple[str, ...] = ()
    max_file_bytes: int = Field(default=512 * 1024**2, ge=1)
    max_batch_requests: int = Field(default=50_000, ge=1)
    connections: int = Field(default=500, ge=1)
    tokens: Mapping[str, ServerToken] = {}

    @field_validator("http")
    @classmethod
    def _is_an_address(cls, http: str) -> str:
        if http:
            HttpAddress.parse(http)
        return http

    @field_validator("tokens")
    @classmethod
    def _leave_the_main_name(cls, tokens: Mapping[str, ServerToken]) -> Mapping[str, ServerToken]:
        if ADMIN in tokens:
            raise ValueError(f"the name {ADMIN!r} belongs to the main token")
        return tokens


class Settings(BaseModel):
    """Every key of config.toml; config.example.toml shows them with their defaults.

    `db`: the ledger, a path or `sqlite:///PATH`; "" is that of this user. `busy_seconds`: how long a write waits for
    that of another process. `endpoints`: endpoints by name, each with its `kind` and settings, checked on first use,
    and the `models` that it serves to batches. `budget`: limits on their use in a day. `retention`: how long old runs
    are kept. `server`: the HTTP server. `http_client`: "auto" asks with the package `ry` where it is installed and does
    what aiohttp does; "aiohttp" never.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    db: str = ""
    busy_seconds: float = Field(default=30.0, gt=0)
    http_client: ChosenClient = "auto"
    endpoints: Mapping[str, Mapping[str, object]] = {}
    budget: DailyBudget = DailyBudget()
    retention: Retention = Retention()
    serve: Serve = Serve()
    server: Server = Server()

    _named: Path | None = PrivateAttr(default=None)

    @field_validator("endpoints")
    @classmethod
    def _models_are_names(cls, endpoints: Mapping[str, Mapping[str, object]]) -> Mapping[str, Mapping[str, object]]:
        for name, fields in endpoints.items():
            models = fields.get("models", [])
            if not isinstance(models, list) or not all(isinstance(model, str) and model.strip() for model in models):
                # pydantic's message would show all settings of the endpoint
                raise UsageError(f'[endpoints.{name}] models must be a list of names, such as ["acme/model"]')
        return endpoints

    @property
    def served_models(self) -> Mapping[str, Sequence[str]]:
        """The models that `[endpoints.NAME] models` name, each with the names of the endpoints that serve it."""
        served: dict[str, list[str]] = {}
        for name, fields in self.endpoints.items():
            for model in fields.get("models", ()):  # type: ignore[attr-defined]  # `_models_are_names` has checked it
                served.setdefault(model, []).append(name)
        return served

    @property
    def options(self) -> tuple[str, ...]:
        """The options with which another process reads the same file; none if it does so by itself."""
        return () if self._named is None else ("--config", str(self._named))

    @property
    def ledger(self) -> str:
        """The ledger's path or URL. By default it is the same for every command of this user, in any folder.

        Raises `UsageError` if it is not set and the user has no home folder.
        """
        if self.db:
            return self.db
        try:
            return str(platformdirs.user_data_path("orchestrator", appauthor=False) / "ledger.db")
        except RuntimeError as error:
            raise UsageError("this user has no home folder: name the ledger with --db PATH, or set HOME") from error


_CHOSEN: ContextVar[Path | None] = ContextVar("chosen", default=None)


def choose_file(settings: Settings) -> None:
    """From now on, read the settings of this task and of its threads from the file that these were read from.

    A job file that names an endpoint then finds it where the caller's settings come from.
    """
    _CHOSEN.set(settings._named)  # noqa: SLF001 - of this module


def load_settings(config: Path | None, db: str | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings. Options override ORCHESTRATOR_DB and ORCHESTRATOR_CONFIG, which override the file.

    Raises `UsageError`, in one line, if the file cannot be used.
    """
    config = config or _CHOSEN.get()
    named = config or environment.get("ORCHESTRATOR_CONFIG")
    path = Path(named) if named else _of_this_user()
    settings = _read(path) if path is not None and (named or path.exists()) else Settings()
    settings._named = None if config is None else config.absolute()  # noqa: SLF001 - of this module
    chosen = db or environment.get("ORCHESTRATOR_DB")
    return settings.model_copy(update={"db": chosen}) if chosen else settings


def _of_this_user() -> Path | None:
    """Return the path of the user's settings file, which may not exist; None for a user without a home folder."""
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
    except UsageError as error:
        raise UsageError(f"config file {path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise UsageError(f"config file {path}: there is no setting {key!r}; there is {_beside(first)}") from error
        raise UsageError(f"config file {path}: {key}: {first['msg']}, not {first['input']!r}") from error


def _beside(error: ErrorDetails) -> str:
    """Return the names of the settings that exist in the place of an unknown one."""
    fields = Settings.model_fields
    for name in error["loc"][:-1]:
        inner = fields[str(name)].annotation
        fields = inner.model_fields if isinstance(inner, type) and issubclass(inner, BaseModel) else {}
    return ", ".join(fields)
