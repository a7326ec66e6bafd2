"""What a format of requests and answers has to offer, and the body of one HTTP request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from orchestrator import exact_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from yarl import URL

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


class Wire(Protocol):
    """A format of requests and answers; a frozen value usable in a job file. It keeps nothing and asks nobody."""

    @property
    def takes_lists(self) -> bool:
        """Whether several items can share a request."""
        ...

    @property
    def identity(self) -> Mapping[str, object]:
        """Everything about it that shapes an answer, as JSON: `wire` is its kind, `wire_model` the model it names."""
        ...

    def url(self, base: URL) -> URL:
        """The URL that is asked, on a server with this base URL; the same where the base is that URL already."""
        ...

    async def pack(self, requests: Sequence[bytes]) -> Body:
        """The body that asks for these requests (JSON each) at once. `RequestFailed` where they make none."""
        ...

    def unpack(self, content: bytes, count: int) -> list[object]:
        """What a body that came with a 200 answers to so many requests, in their order.

        An entry is a value, an `Answer` (a value and its tokens), or the `RequestFailed` of that request alone. Raises
        `RequestFailed` where no request can be told from the others; nothing else, whatever the body is.
        """
        ...


@runtime_checkable
class ReadsByRequest(Protocol):
    """A wire whose requests may have parameters of their own by which their answers are read."""

    def reading(self, requests: Sequence[bytes]) -> Wire:
        """Return the wire that reads the answer to these requests: itself if they have no such parameters."""
        ...


@runtime_checkable
class AnswersElsewhere(Protocol):
    """A wire whose server puts a request into a queue, and answers it at another URL."""

    def answer_url(self, url: URL, content: bytes) -> URL:
        """Return the URL of which a GET gives the answer, to be unpacked. `content`: of the 200 from `url`.

        Raises `RequestFailed` if `content` does not name it; nothing else.
        """
        ...
