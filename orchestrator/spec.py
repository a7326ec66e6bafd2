"""`JobSpec`, a job as JSON, from which any process on this machine can execute a run without the job's file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from orchestrator import exact_json
from orchestrator.domain.errors import UsageError
from orchestrator.domain.policy import Policy
from orchestrator.domain.schedule import Cron
from orchestrator.domain.urls import holds_key
from orchestrator.job import Job, Weighted
from orchestrator.kinds import ENDPOINTS, HOOKS, SINKS, SOURCES, Form, Writer, checked, is_reference, made
from orchestrator.user_file import execute_job_file, executed_job_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

    from orchestrator.domain.request import RequestMaker
    from orchestrator.kinds import Find
    from orchestrator.ports import Endpoint, Hook


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A `Job` as JSON (docs/job_spec.md). It never contains a secret, and refers to files for Python objects.

    A source, a sink, an endpoint, a wire or a hook has a `kind` and settings; `endpoints` also have a `weight`, and in
    a job with a `rollout` perhaps `as`, the name under which it asks them.
    Instead of one of these, or of a setting, `{"python": {"file": ..., "name": ...}}` refers to an object in a Python
    file by its attribute path. Omitted settings have their defaults. `JobSpec.of(job)` and `spec.job()` are inverse.
    """

    name: str
    source: Form
    sink: Form | None = None
    endpoints: tuple[Form, ...]
    fallback: Form | None = None
    request: object = "{text}"
    parse: Form | None = None
    policy: Form = field(default_factory=dict)
    schedule: Form | None = None
    incremental: bool = False
    allow_empty: bool = False
    on_finish: tuple[Form, ...] = ()
    on_failure: tuple[Form, ...] = ()
    after: tuple[str, ...] = ()
    after_end: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    rollout: Form | None = None

    @classmethod
    def of(cls, job: Job) -> JobSpec:
        """Return the spec of a job.

        Raises `UsageError` if a part has no JSON form, or may hold a secret, and is not in a job file.
        """
        write = Writer(_reference)
        return cls(
            name=job.name,
            source=write.kind(SOURCES, job.source, ["source"]),
            sink=None if job.sink is None else write.kind(SINKS, job.sink, ["sink"]),
            endpoints=tuple(_endpoints(job, write)),
            fallback=None if job.fallback is None else write.kind(ENDPOINTS, job.fallback, ["fallback"]),
            request=_request(job.request, write),
            parse=None if job.parse is None else _reference(job.parse, ["parse"], "is a function"),
            policy=write.settings(job.policy, ["policy"]),
            schedule=None if job.schedule is None else write.settings(job.schedule, ["schedule"]),
            incremental=job.incremental,
            allow_empty=job.allow_empty,
            on_finish=_hooks(job.finish_hooks, write, "finish_hooks"),
            on_failure=_hooks(job.failure_hooks, write, "failure_hooks"),
            after=tuple(name for name, any_end in job.waits_for if not any_end),
            after_end=tuple(name for name, any_end in job.waits_for if any_end),
            keep=tuple(job.keep),
            rollout=None if job.rollout is None else _reference(job.rollout, ["rollout"], "is a function"),
        )

    @classmethod
    def read(cls, form: object, where: str) -> JobSpec:
        """Return the spec in decoded JSON, checked as far as possible without the objects that it refers to."""
        if not isinstance(form, dict):
            raise UsageError(f"{where} must be an object with the fields of a job, not a {type(form).__name__}")
        return made(cls, form, where)

    @classmethod
    def load(cls, path: Path) -> JobSpec:
        """Return the spec in a JSON file. Raises `UsageError`, in one line, for anything that can be wrong with it."""
        try:
            content = path.read_bytes()
            form = exact_json.loads(content)
            if (name := exact_json.repeated_key(content)) is not None:
                raise UsageError(f"{path} has the key {name!r} twice in one object: remove one of them")
            return cls.read(form, str(path))
        except FileNotFoundError as error:
            raise UsageError(f"there is no job file {path}") from error
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from error
        except orjson.JSONDecodeError as error:
            raise UsageError(f"{path}, line {error.lineno}, column {error.colno}: {error.msg}") from error

    def as_json(self) -> dict[str, object]:
        """Return the fields that differ from their defaults."""
        return {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) != _default(one)}

    def job(self, where: str = "spec") -> Job:
        """Return the job. Executes the Python files that the spec refers to.

        Raises `UsageError`, one line that begins with `where`, if the job cannot be created.
        """
        find = _Objects().find
        endpoint = _read_endpoints(self.endpoints, f"{where}: endpoints", find)
        settings: dict[str, object] = {
            "source": SOURCES.read(self.source, f"{where}: source", find),
            "sink": None if self.sink is None else SINKS.read(self.sink, f"{where}: sink", find),
            "endpoint": endpoint,
            "fallback": None if self.fallback is None else ENDPOINTS.read(self.fallback, f"{where}: fallback", find),
            "request": checked(object, self.request, f"{where}: request", find),
            "parse": None if self.parse is None else _function(self.parse, f"{where}: parse", find),
            "policy": made(Policy, self.policy, f"{where}: policy", find),
            "schedule": None if self.schedule is None else made(Cron, self.schedule, f"{where}: schedule", find),
            "rollout": None if self.rollout is None else _function(self.rollout, f"{where}: rollout", find),
            "on_finish": _read_hooks(self.on_finish, f"{where}: on_finish", find),
            "on_failure": _read_hooks(self.on_failure, f"{where}: on_failure", find),
        }
        plain = {"incremental": self.incremental, "allow_empty": self.allow_empty}
        try:
            return Job(self.name, **settings, **plain, after=self.after, after_end=self.after_end, keep=self.keep)  # type: ignore[arg-type]  # Job checks them
        except (TypeError, ValueError) as error:
            raise UsageError(f"{where}: {error}") from error


def stored_spec(job: Job) -> dict[str, object]:
    """Return what the ledger stores of a job with its run: its `spec`, or as `no_spec` why there is none.

    Without a spec, `request` has what the manifest shows, unless that is a function that only this process has.
    """
    try:
        return {"spec": JobSpec.of(job).as_json()}
    except UsageError as error:
        with suppress(UsageError):
            request = None if job.rollout is not None else _request(job.request, Writer(_reference))
            return {"no_spec": str(error), "request": request}
        return {"no_spec": str(error)}


# -- writing -----------------------------------------------------------------------------------------------------------


def _request(request: RequestMaker, write: Writer) -> object:
    if callable(request):
        return _reference(request, ["request"], "is a function")
    form = write.value(object, request, ["request"])
    if holds_key(exact_json.dumps(form).decode()):
        return _reference(request, ["request"], "may hold a secret")
    return form


def _endpoints(job: Job, write: Writer) -> Iterator[Form]:
    if not isinstance(job.endpoint, Mapping):
        yield from _endpoints_of(job.endpoint, ["endpoint"], write)
        return
    for name, given in job.endpoint.items():
        for form in _endpoints_of(given, ["endpoint", name], write):
            yield {**form, "as": name}


def _endpoints_of(given: object, path: list[str], write: Writer) -> Iterator[Form]:
    if isinstance(given, list | tuple):
        for number, one in enumerate(given):
            yield from _endpoints_of(one, [*path, str(number)], write)
    elif isinstance(given, Weighted):
        form = write.kind(ENDPOINTS, given.endpoint, [*path, "endpoint"])
        yield {**form, **({"weight": given.weight} if given.weight != 1 else {})}
    else:
        yield write.kind(ENDPOINTS, given, path)


def _hooks(hooks: Sequence[Hook], write: Writer, attribute: str) -> tuple[Form, ...]:
    return tuple(write.kind(HOOKS, hook, [attribute, str(number)]) for number, hook in enumerate(hooks))


def _default(one: object) -> object:
    factory = getattr(one, "default_factory", MISSING)
    return getattr(one, "default", MISSING) if factory is MISSING else factory()


def _reference(value: object, path: Sequence[str], why: str) -> Form:
    """Return a reference to a value in a job file that this process has executed, or to a function in a module.

    Raises `UsageError` if neither has it.
    """
    for module in [*executed_job_files(), *_module_of(value)]:
        name = _name_in(module, value, ".".join(path))
        if name is not None:
            return {"python": {"file": str(module.__file__), "name": name}}
    remedy = "name an environment variable instead" if "secret" in why else "declare it in a job file"
    remedy += " or in a module of its own" if "function" in why else ""
    if path == ["source"]:
        remedy += ", which makes its rows again, or write them to a Parquet file"
    raise UsageError(f"{'.'.join(path)} ({type(value).__name__}) {why}, so other processes cannot use it: {remedy}")


def _module_of(value: object) -> list[ModuleType]:
    """Return the module that defines a function, if another process can execute its file by itself.

    The file of the main program would do everything again, and that of a package needs the rest of it.
    """
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    if module is None or module.__name__ == "__main__" or module.__spec__ is None or module.__spec__.parent:
        return []
    return [module] if str(module.__file__).endswith(".py") else []


def _name_in(module: ModuleType, value: object, path: str) -> str | None:
    """Return the attribute path of a value in a module: its own name, or a path from the module's job."""
    for name, member in vars(module).items():
        if member is value and callable(value):
            return name
        if isinstance(member, Job) and _is_same(_walk(member, path), value):
            return f"{name}.{path}"
    return None


def _is_same(found: object, value: object) -> bool:
    return found is value or (isinstance(value, str | list | tuple | dict) and found == value)


def _walk(value: object, path: str) -> object:
    """Return the value at an attribute path, in which numbers are list indexes; None if there is none."""
    for step in path.split("."):
        if step.isdecimal() and isinstance(value, list | tuple):
            value = value[int(step)] if int(step) < len(value) else None
        elif isinstance(value, Mapping):
            value = value.get(step)
        else:
            value = getattr(value, step, None)
    return value


# -- reading -----------------------------------------------------------------------------------------------------------


class _Objects:
    """Python objects by file and name; each file is executed once."""

    def __init__(self) -> None:
        self._modules: dict[Path, ModuleType] = {}

    def find(self, reference: Form, where: str) -> object:
        inside = reference["python"]
        assert isinstance(inside, dict)
        file, name = inside["file"], inside["name"]
        if not isinstance(file, str) or not isinstance(name, str):
            raise UsageError(f"{where}: python must have the path of a file and a name, both strings")
        path = Path(file).expanduser().absolute()
        if not path.is_file():
            raise UsageError(f"{where} is {name} in {path}, and there is no such file: restore it")
        if path not in self._modules:
            self._modules[path] = execute_job_file(path)
        found = _walk(self._modules[path], name)
        if found is None:
            raise UsageError(f"{where}: there is no {name} in {path}")
        return found


def _function(form: Form, where: str, find: Find) -> object:
    if not is_reference(form):
        raise UsageError(
            f'{where} must refer to a function: {{"python": {{"file": "parsers.py", "name": "best_label"}}}}'
        )
    return find(form, where)


def _read_endpoints(forms: Sequence[Form], where: str, find: Find) -> object:
    """Return what a job takes as its endpoint: one, a list, or a mapping of lists by the names of routes."""
    settings = [dict(form) for form in forms]
    names = [checked(str | None, one.pop("as", None), f"{where}[{n}]: as") for n, one in enumerate(settings)]
    given = [_weighted(one, f"{where}[{number}]", find) for number, one in enumerate(settings)]
    if set(names) <= {None}:
        return _as_declared(given)
    if None in names:
        raise UsageError(f"{where}[{names.index(None)}]: 'as' is missing, and other endpoints have it")
    return {
        name: _as_declared([one for one, route in zip(given, names, strict=True) if route == name]) for name in names
    }


def _as_declared(weighted: Sequence[Weighted]) -> object:
    """Return endpoints in the simplest form that a job takes."""
    given = [one.endpoint if one.weight == 1 else one for one in weighted]
    return given[0] if len(given) == 1 else given


def _weighted(settings: dict[str, object], where: str, find: Find) -> Weighted:
    weight = checked(float, settings.pop("weight", 1.0), f"{where}: weight")
    endpoint: Endpoint = ENDPOINTS.read(settings, where, find)
    try:
        return Weighted(endpoint, weight)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where}: {error}") from error


def _read_hooks(forms: Sequence[Form], where: str, find: Find) -> list[Hook] | None:
    return [HOOKS.read(form, f"{where}[{number}]", find) for number, form in enumerate(forms)] or None
