"""The settings file as a frozen value. It is read once, at the composition root.

pydantic checks a file. It takes long to import, and most commands of most users have no file to check, so the
declarations need only the standard library, and `annotated_types`, whose limits pydantic knows.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
import typing
from collections.abc import Callable, Mapping, Sequence  # noqa: TC003 - pydantic reads annotations at run time
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import platformdirs
from annotated_types import Ge, Gt, Le, MinLen

from orchestrator.domain.errors import UsageError
from orchestrator.domain.http_address import HttpAddress
from orchestrator.domain.http_client import ChosenClient  # noqa: TC001 - pydantic reads annotations at run time
from orchestrator.domain.identity import ADMIN, Role
from orchestrator.domain.moment import seconds_of

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_FORBID = {"extra": "forbid"}  # pydantic's setting: unknown keys are errors


@dataclass(frozen=True, slots=True)
class _Checked:
    """Annotates a setting with a function that returns it, or what replaces it, or raises an error.

    The function takes the value and the folder of the settings file.
    """

    check: Callable[[Any, Path], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core import core_schema

        return core_schema.with_info_after_validator_function(
            lambda value, info: self.check(value, info.context), handler(source)
        )


def _from_the_file(jobs: tuple[Path, ...], folder: Path) -> tuple[Path, ...]:
    try:
        jobs = tuple(job.expanduser() for job in jobs)
    except RuntimeError as error:  # pydantic expects a ValueError
        raise ValueError("there is no home folder to replace ~") from error
    return tuple(Path(os.path.abspath(folder / job)) for job in jobs)


def _is_an_age(keep: str, _folder: Path) -> str:
    if keep != "never":
        seconds_of(keep)
    return keep


def _is_an_address(http: str, _folder: Path) -> str:
    if http:
        HttpAddress.parse(http)
    return http


def _leaves_the_main_name(tokens: Mapping[str, ServerToken], _folder: Path) -> Mapping[str, ServerToken]:
    if ADMIN in tokens:
        raise ValueError(f"the name {ADMIN!r} belongs to the main token")
    return tokens


def _has_names_of_models(
    endpoints: Mapping[str, Mapping[str, object]], _folder: Path
) -> Mapping[str, Mapping[str, object]]:
    for name, fields in endpoints.items():
        models = fields.get("models", [])
        if not isinstance(models, list) or not all(isinstance(model, str) and model.strip() for model in models):
            # pydantic's message would show all settings of the endpoint
            raise UsageError(f'[endpoints.{name}] models must be a list of names, such as ["acme/model"]')
    return endpoints


@dataclass(frozen=True)
class FailureWebhook:
    """A webhook with the settings of a job's `Webhook(url, secret_env=...)`."""

    __pydantic_config__ = _FORBID

    url: str
    secret_env: str | None = None


@dataclass(frozen=True)
class Serve:
    """`[serve]`: settings of `orchestrator serve`.

    `jobs`: folders whose job files' schedules it fires, relative to the folder of the settings file. `runs`: how many
    runs it executes at once. `on_failure`: a command or a webhook to notify when a queued run fails and its job has no
    `on_failure` or cannot be loaded.
    """

    __pydantic_config__ = _FORBID

    jobs: Annotated[tuple[Path, ...], _Checked(_from_the_file)] = ()
    runs: Annotated[int, Ge(1), Le(1000)] = 4
    on_failure: tuple[str, ...] | FailureWebhook = ()


@dataclass(frozen=True)
class DailyBudget:
    """`[budget]`: dollars and seconds awake that all runs of the ledger together may spend in a day (UTC)."""

    __pydantic_config__ = _FORBID

    max_cost_per_day: Annotated[float, Ge(0)] | None = None
    max_awake_per_day: Annotated[float, Ge(0)] | None = None


@dataclass(frozen=True)
class Retention:
    """`[retention]`: how long runs, and the answers that only they need, are kept after their end: 90d, 12w.

    "never": nothing is deleted.
    """

    __pydantic_config__ = _FORBID

    keep: Annotated[str, _Checked(_is_an_age)] = "90d"

    @property
    def seconds(self) -> float | None:
        """How long runs are kept; None if nothing is ever deleted."""
        return None if self.keep == "never" else seconds_of(self.keep)


@dataclass(frozen=True)
class ServerToken:
    """`[server.tokens.NAME]`: what the bearer of one token may do. The token is in a variable, never in the file."""

    __pydantic_config__ = _FORBID

    role: Role
    token_env: Annotated[str, MinLen(1)]


@dataclass(frozen=True)
class Server:
    """`[server]`: settings of the HTTP server.

    `http`: HOST:PORT where `orchestrator serve` listens; "" is nowhere. `hosts`: further values of the header Host that
    it answers to, such as a proxy's `batch.example.org`. `max_file_bytes`: the largest file that it takes.
    `max_batch_requests`: the most lines of a batch, and the most inputs of one that asks for embeddings. `connections`:
    how many clients may be connected at once. `tokens`: by name, who may use it beside whoever has the main token.
    """

    __pydantic_config__ = _FORBID

    http: Annotated[str, _Checked(_is_an_address)] = ""
    hosts: tuple[str, ...] = ()
    max_file_bytes: Annotated[int, Ge(1)] = 512 * 1024**2
    max_batch_requests: Annotated[int, Ge(1)] = 50_000
    connections: Annotated[int, Ge(1)] = 500
    tokens: Annotated[Mapping[str, ServerToken], _Checked(_leaves_the_main_name)] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """Every key of config.toml; config.example.toml shows them with their defaults.

    `db`: the ledger, a path or `sqlite:///PATH`; "" is that of this user. `busy_seconds`: how long a write waits for
    that of another process. `endpoints`: endpoints by name, each with its `kind` and settings, checked on first use,
    and the `models` that it serves to batches. `budget`: limits on their use in a day. `retention`: how long old runs
    are kept. `server`: the HTTP server. `http_client`: "auto" asks with the package `ry` where it is installed and does
    what aiohttp does; "aiohttp" never.
    """

    __pydantic_config__ = _FORBID

    db: str = ""
    busy_seconds: Annotated[float, Gt(0)] = 30.0
    http_client: ChosenClient = "auto"
    endpoints: Annotated[Mapping[str, Mapping[str, object]], _Checked(_has_names_of_models)] = field(
        default_factory=dict
    )
    budget: DailyBudget = DailyBudget()
    retention: Retention = Retention()
    serve: Serve = Serve()
    server: Server = field(default_factory=Server)
    _named: Path | None = field(default=None, init=False, repr=False, compare=False)
    _file: Path | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def served_models(self) -> Mapping[str, Sequence[str]]:
        """The models that `[endpoints.NAME] models` name, each with the names of the endpoints that serve it."""
        served: dict[str, list[str]] = {}
        for name, fields in self.endpoints.items():
            for model in fields.get("models", ()):  # type: ignore[attr-defined]  # `_has_names_of_models` has checked it
                served.setdefault(model, []).append(name)
        return served

    @property
    def options(self) -> tuple[str, ...]:
        """The options with which another process reads the same file; none if it does so by itself."""
        return () if self._named is None else ("--config", str(self._named))

    def stamp(self) -> tuple[int, int, int] | None:
        """Return what changes when their file does; None while there is none. Blocking."""
        try:
            found = None if self._file is None else self._file.stat()
        except OSError:
            return None
        return None if found is None else (found.st_ino, found.st_mtime_ns, found.st_size)

    def read_again(self) -> Settings:
        """Return the settings that the file has now, for the same ledger. Blocking. Raises `UsageError`."""
        return _with_file(Settings() if self._file is None else _read(self._file), self.db, self._named, self._file)

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
    chosen = db or environment.get("ORCHESTRATOR_DB") or settings.db
    return _with_file(settings, chosen, None if config is None else config.absolute(), path and path.absolute())


def _with_file(settings: Settings, db: str, named: Path | None, file: Path | None) -> Settings:
    made = dataclasses.replace(settings, db=db)
    object.__setattr__(made, "_named", named)  # `replace` leaves them out
    object.__setattr__(made, "_file", file)
    return made


def settings_from(found: Mapping[str, object], folder: Path = Path()) -> Settings:
    """Return the settings that a file in this folder has. Raises pydantic's `ValidationError`, or `UsageError`."""
    from pydantic import TypeAdapter

    return TypeAdapter(Settings).validate_python(found, context=folder)


def _of_this_user() -> Path | None:
    """Return the path of the user's settings file, which may not exist; None for a user without a home folder."""
    try:
        return platformdirs.user_config_path("orchestrator", appauthor=False) / "config.toml"
    except RuntimeError:
        return None


def _read(path: Path) -> Settings:
    from pydantic import ValidationError

    try:
        return settings_from(tomllib.loads(path.read_text(encoding="utf-8")), path.absolute().parent)
    except OSError as error:
        raise UsageError(f"config file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"config file {path} is not valid TOML: {error}") from error
    except UsageError as error:
        raise UsageError(f"config file {path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "unexpected_keyword_argument":
            raise UsageError(f"config file {path}: there is no setting {key!r}; there is {_beside(first)}") from error
        raise UsageError(f"config file {path}: {key}: {first['msg']}, not {first['input']!r}") from error


def _beside(error: ErrorDetails) -> str:
    """Return the names of the settings that exist in the place of an unknown one."""
    section: Any = Settings
    for name in error["loc"][:-1]:
        kinds = typing.get_type_hints(section)
        section = kinds.get(str(name), ServerToken)  # the tokens have names of the user's
    return ", ".join(one.name for one in dataclasses.fields(section) if one.init)
