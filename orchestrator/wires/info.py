"""The limits on one request that a server states at `/info`.

Source: text-embeddings-inference 1.9 and text-generation-inference 3.3, `router/src/http/types.rs` and
`router/src/lib.rs`: `max_client_batch_size` inputs are taken in one request, and the server works on
`max_batch_tokens` at once.
"""

from __future__ import annotations

import orjson

from orchestrator.domain.batching import Limits


def limits_from(content: bytes, limits: Limits) -> Limits:
    """Return the limits narrowed by what the server states, or unchanged if it states nothing."""
    try:
        said = orjson.loads(content)
    except ValueError:
        return limits
    if not isinstance(said, dict):
        return limits
    items, tokens = (_number(said.get(name)) for name in ("max_client_batch_size", "max_batch_tokens"))
    return Limits(
        limits.items if items is None else min(limits.items, items),
        limits.tokens if tokens is None or limits.tokens is None else min(limits.tokens, tokens),
    )


def _number(value: object) -> int | None:
    return value if type(value) is int and value >= 1 else None
