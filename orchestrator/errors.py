"""The named failures that a script may catch. The text of each is the one line that the command would print."""

from orchestrator.domain.errors import (
    BudgetSpent,
    Busy,
    EndpointFailed,
    EndpointRefused,
    EndpointSilent,
    LedgerError,
    LedgerLocked,
    NoCapacity,
    NotAwake,
    OrchestratorError,
    OutOfCredit,
    PauseUnconfirmed,
    RunFailed,
    RunStopped,
    UsageError,
)

__all__ = [
    "BudgetSpent",
    "Busy",
    "EndpointFailed",
    "EndpointRefused",
    "EndpointSilent",
    "LedgerError",
    "LedgerLocked",
    "NoCapacity",
    "NotAwake",
    "OrchestratorError",
    "OutOfCredit",
    "PauseUnconfirmed",
    "RunFailed",
    "RunStopped",
    "UsageError",
]
