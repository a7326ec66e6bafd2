"""The body of an HTTP answer, unpacked and read no further than a limit: what a server sends cannot take the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.domain.errors import FailureKind, RequestFailed

if TYPE_CHECKING:
    import aiohttp


async def beginning(response: aiohttp.ClientResponse, most: int) -> tuple[bytes, bool]:
    """The first bytes of the body, and whether they are all of it. The limit counts bytes as they are once unpacked.

    The connection is given back at the body's end; where it is not read that far, or has no end, it is closed.
    """
    content = bytearray()  # not a list of parts: a server may send a byte at a time
    try:
        async for part in response.content.iter_any():
            content += part
            if len(content) > most:
                return bytes(content[:most]), False
    finally:
        response.close()
    return bytes(content), True


def too_large(most: int) -> RequestFailed:
    """The failure of an answer that is larger than the policy allows."""
    why = f"the answer is larger than policy.max_answer_bytes={most:,}: raise it, or ask for less"
    return RequestFailed(FailureKind.BAD_ANSWER, why, status=200)
