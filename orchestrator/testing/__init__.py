"""Conformance suites for kinds of source, sink, wire and endpoint: subclass one in a pytest module.

They need pytest (`pip install 'orchestrator[testing]'`) and no plugin. CONTRIBUTING.md shows one in full.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.words import words

if TYPE_CHECKING:
    from orchestrator.testing.billing import BilledEndpointConformance
    from orchestrator.testing.endpoints import EndpointConformance
    from orchestrator.testing.sinks import SinkConformance
    from orchestrator.testing.sources import FileSourceConformance, SourceConformance
    from orchestrator.testing.wires import WireConformance

_HOMES = {
    "BilledEndpointConformance": "orchestrator.testing.billing",
    "EndpointConformance": "orchestrator.testing.endpoints",
    "FileSourceConformance": "orchestrator.testing.sources",
    "SinkConformance": "orchestrator.testing.sinks",
    "SourceConformance": "orchestrator.testing.sources",
    "WireConformance": "orchestrator.testing.wires",
}
pytest.register_assert_rewrite(*set(_HOMES.values()), "orchestrator.testing.assertions")

if (
    not TYPE_CHECKING
):  # the modules are imported when they are used, after pytest has been told to rewrite their asserts
    __getattr__ = words(__name__, _HOMES)

__all__ = [
    "BilledEndpointConformance",
    "EndpointConformance",
    "FileSourceConformance",
    "SinkConformance",
    "SourceConformance",
    "WireConformance",
]
