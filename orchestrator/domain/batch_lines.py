"""The lines of a batch in OpenAI's format: which routes they may name."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

Route: TypeAlias = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]
ROUTES: tuple[Route, ...] = get_args(Route)
