"""FLOOR 3: the kinds of endpoint, one file each."""

from orchestrator.endpoints.http import HttpEndpoint
from orchestrator.endpoints.local import LocalEndpoint

__all__ = ["HttpEndpoint", "LocalEndpoint"]
