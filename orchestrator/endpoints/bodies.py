"""Read the body of an HTTP answer up to a limit, so that no server can exhaust our memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.errors import FailureKind, RequestFailed

if TYPE_CHECKING:
    import aiohttp

    from orchestrator.domain.http_client import Watch


async def beginning(response: aiohttp.ClientResponse, most: int, watch: Watch | None = None) -> tuple[bytes, bool]:
    """Return the first `most` bytes of the decompressed body, and whether they are all of it.

    `watch` sees the parts as they come. The connection returns to the pool if the body was read to its end. Otherwise
    it is closed.
    """
    content = bytearray()  # not a list of parts: a server may send a byte at a time
    try:
        async for part in response.content.iter_any():
            content += part
            if watch is not None:
                watch(part)
            if len(content) > most:
                return bytes(content[:most]), False
    finally:
        response.close()
    return bytes(content), True


def too_large(most: int) -> RequestFailed:
    """Return the failure for an answer that is larger than the policy allows."""
    why = f"the answer is larger than policy.max_answer_bytes={most:,}: raise it, or ask for less"
    return RequestFailed(FailureKind.BAD_ANSWER, why, status=200)
