"""Conformance suites for sources, sinks, wires and endpoints: subclass one in a pytest module.

They need pytest (`pip install 'batch-inference-orchestrator[testing]'`) but no plugin. CONTRIBUTING.md has
complete examples.
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

_MODULES = {
    "BilledEndpointConformance": "orchestrator.testing.billing",
    "EndpointConformance": "orchestrator.testing.endpoints",
    "FileSourceConformance": "orchestrator.testing.sources",
    "SinkConformance": "orchestrator.testing.sinks",
    "SourceConformance": "orchestrator.testing.sources",
    "WireConformance": "orchestrator.testing.wires",
}
pytest.register_assert_rewrite(*set(_MODULES.values()), "orchestrator.testing.assertions")

if not TYPE_CHECKING:  # import each module on first use, after pytest was asked to rewrite its asserts
    __getattr__, __dir__ = words(__name__, _MODULES)

__all__ = [
    "BilledEndpointConformance",
    "EndpointConformance",
    "FileSourceConformance",
    "SinkConformance",
    "SourceConformance",
    "WireConformance",
]
