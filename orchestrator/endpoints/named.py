"""Build endpoints from plain data: by name from the settings file, and from the settings in the ledger."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from orchestrator.config import load_settings
from orchestrator.domain.errors import UsageError
from orchestrator.kinds import ENDPOINTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.ports import Endpoint


_OF_THE_WIRE = frozenset({"wire", "parameters", "lists"})


def endpoint_from(fields: Mapping[str, object], where: str = "endpoint") -> Endpoint:
    """Return the endpoint with this `kind` and these settings. Raises `UsageError` with `where` and the setting."""
    endpoint: Endpoint = ENDPOINTS.read(fields, where)
    return endpoint


def named(name: str) -> Endpoint:
    """Return the endpoint `[endpoints.NAME]` of the settings file. If its kind has a `name`, the default is NAME.

    Reads the settings file. Raises `UsageError` if it has no such endpoint, or the endpoint's settings are not valid.
    """
    endpoints = load_settings(None, None).endpoints
    if name not in endpoints:
        existing = f"it has {', '.join(endpoints)}" if endpoints else "it has none"
        raise UsageError(f"the settings file has no [endpoints.{name}]; {existing}")
    return declared(name, endpoints[name])


def declared(name: str, settings: Mapping[str, object], wire: Mapping[str, object] | None = None) -> Endpoint:
    """Return the endpoint with these settings of `[endpoints.NAME]`; with `wire`, it speaks that one, not its own.

    Raises `UsageError` if the settings are not valid, or name `models` although the kind speaks no wire.
    """
    where, known = _place(name), _known(name, settings)
    fields = {key: value for key, value in settings.items() if key != "models"}
    if "name" in known:
        fields.setdefault("name", name)
    if wire is not None:
        fields = {key: value for key, value in fields.items() if key not in _OF_THE_WIRE} | {"wire": wire}
    return endpoint_from(fields, where)


def check_models(endpoints: Mapping[str, Mapping[str, object]]) -> None:
    """Raise `UsageError` if an endpoint that has `models` cannot serve them, or its settings are not valid."""
    for name, settings in endpoints.items():
        if "models" in settings:
            declared(name, settings)


def _known(name: str, settings: Mapping[str, object]) -> set[str]:
    """Return the settings of the endpoint's kind. Raises `UsageError` if it has `models` but speaks no wire."""
    kind = ENDPOINTS.type_of(settings.get("kind"), _place(name))
    known = {field.name for field in dataclasses.fields(kind)}
    if "models" in settings and "wire" not in known:
        raise UsageError(f"{_place(name)}: kind {settings['kind']!r} does not speak OpenAI's routes: leave models out")
    return known


def _place(name: str) -> str:
    return f"[endpoints.{name}] of the settings file"
