"""Which modules each command imports: what it does not need must not slow its start."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.commands import Workplace

# what commands that only look have no use for
_HEAVY = {
    "aiohttp", "alembic", "huggingface_hub", "jsonschema", "numpy", "prometheus_client", "pyarrow", "ray", "ry",
    "sqlalchemy", "torch", "transformers",
}  # fmt: skip
_FOR_RUNS = ("orchestrator.wires.", "orchestrator.sources.", "orchestrator.engine.asking", "orchestrator.engine.daemon")
_CODE = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
sys.argv[0] = "orchestrator"
from orchestrator.cli import main
main()
"""


def imported(*arguments: str) -> set[str]:
    """Return the modules that a command had imported when it ended."""
    ran = subprocess.run([sys.executable, "-c", _CODE, *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode in {0, 2}, ran.stderr
    return set(ran.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("command", ["--help", "run --help", "endpoints --help"])
def test_help_imports_no_ledger_and_no_application(command: str) -> None:
    modules = imported(*command.split())
    ours = {name.split(".")[1] for name in modules if name.startswith("orchestrator.")}
    if command != "run --help":  # whose module shows progress
        assert ours <= {"cli", "descriptors", "domain", "version", "words"}
    assert not _HEAVY & modules


@pytest.mark.parametrize("command", ["runs", "queue", "costs", "status", "items 1", "item 1 a", "logs", "report"])
def test_a_command_that_only_looks_imports_nothing_that_asks(workplace: Workplace, command: str) -> None:
    workplace.make_ledger()
    modules = imported("--db", str(workplace.ledger), *command.split())
    assert not _HEAVY & modules
    assert not {name for name in modules if name.startswith(_FOR_RUNS)}
    assert "orchestrator.store.prune" not in modules
