"""Endpoints from plain data: by name from the settings file, and from what the ledger keeps of them."""

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
    """The endpoint that its `kind` and its settings describe. `UsageError` says where, and names the setting."""
    endpoint: Endpoint = ENDPOINTS.read(fields, where)
    return endpoint


def named(name: str) -> Endpoint:
    """The endpoint that the settings file calls `[endpoints.NAME]`; if its kind has a `name`, that is NAME by default.

    Reads the settings file. `UsageError` where it knows no such endpoint, or does not describe it rightly.
    """
    endpoints = load_settings(None, None).endpoints
    if name not in endpoints:
        known = f"there is {', '.join(endpoints)}" if endpoints else "it has none"
        raise UsageError(f"the settings file has no [endpoints.{name}]; {known}")
    fields, where = dict(endpoints[name]), f"[endpoints.{name}] of the settings file"
    kind = ENDPOINTS.type_of(fields.get("kind"), where)
    if any(spec.name == "name" for spec in dataclasses.fields(kind)):
        fields.setdefault("name", name)
    return endpoint_from(fields, where)
