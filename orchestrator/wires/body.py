"""One HTTP request body."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator import exact_json

JSON_TYPE = "application/json"  # exactly: the inference toolkit compares it literally


@dataclass(frozen=True, slots=True)
class Body:
    """What is sent, and how."""

    content: bytes
    content_type: str = JSON_TYPE
    method: str = "POST"

    @classmethod
    def of(cls, value: object) -> Body:
        """Return the body for a value as JSON."""
        return cls(exact_json.dumps(value))

    @property
    def headers(self) -> dict[str, str] | None:
        """Return the headers that differ from the session's, which say JSON."""
        return None if self.content_type == JSON_TYPE else {"Content-Type": self.content_type}
