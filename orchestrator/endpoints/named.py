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
    fields, where = dict(endpoints[name]), f"[endpoints.{name}] of the settings file"
    kind = ENDPOINTS.type_of(fields.get("kind"), where)
    if any(spec.name == "name" for spec in dataclasses.fields(kind)):
        fields.setdefault("name", name)
    return endpoint_from(fields, where)
