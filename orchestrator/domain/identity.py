"""Who makes a request to the HTTP server, and what this role may do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

ADMIN = "admin"  # the name of whoever has the main token


class Role(StrEnum):
    """What the bearer of a token may do; each role may also do what the ones before it may."""

    READ = "read"  # look at everything but other people's files and batches
    RUN = "run"  # make files and batches, and act on the runs of its own batches
    ADMIN = "admin"  # everything, also on what others made

    def includes(self, needed: Role) -> bool:
        """Whether this role may do what `needed` may do."""
        roles = list(Role)
        return roles.index(self) >= roles.index(needed)


@dataclass(frozen=True, slots=True)
class Identity:
    """The name and the role of whoever makes a request. Files and batches belong to the name."""

    name: str
    role: Role

    @property
    def only(self) -> str | None:
        """The owner whose files and batches it sees; None for an admin, who sees those of all owners."""
        return None if self.role is Role.ADMIN else self.name
