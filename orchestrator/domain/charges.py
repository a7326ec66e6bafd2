"""Charges: what an endpoint costs that is paid by the request or by the token, not by the hour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class UsePrice:
    """Dollars for a request, and for a million tokens of requests and of answers; None for what is not charged."""

    per_request: float | None = None
    per_million_tokens: tuple[float, float] | None = None

    def charge(self, requests: float, tokens_in: float | None, tokens_out: float | None) -> Charge:
        """Return what so many answered requests cost, with the tokens that the server counted."""
        dollars = requests * (self.per_request or 0.0)
        if self.per_million_tokens is not None:
            price_in, price_out = self.per_million_tokens
            dollars += ((tokens_in or 0) * price_in + (tokens_out or 0) * price_out) / _MILLION
        return Charge(requests, tokens_in or 0, tokens_out or 0, dollars)


@dataclass(frozen=True, slots=True)
class Charge:
    """Requests that were answered, their tokens, and what they cost together."""

    requests: float = 0
    tokens_in: float = 0
    tokens_out: float = 0
    dollars: float = 0.0

    def __add__(self, other: Charge) -> Charge:
        return Charge(
            self.requests + other.requests,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            self.dollars + other.dollars,
        )

    def __sub__(self, other: Charge) -> Charge:
        return self + Charge(-other.requests, -other.tokens_in, -other.tokens_out, -other.dollars)


def use_price(per_request: object, per_million_tokens: object) -> UsePrice | None:
    """Return the price that an endpoint's settings name; None if they name none. Raises `ValueError`."""
    if per_request is None and per_million_tokens is None:
        return None
    if not (per_request is None or _is_price(per_request)):
        raise ValueError(f"price_per_request must be a number of dollars of at least 0, not {per_request!r}")
    each = None if per_request is None else float(per_request)
    if per_million_tokens is None:
        return UsePrice(each)
    pair = tuple(per_million_tokens) if isinstance(per_million_tokens, list | tuple) else ()
    if len(pair) != 2 or not all(map(_is_price, pair)):
        raise ValueError(
            "price_per_million_tokens must be two numbers of dollars of at least 0, for requests and for answers, "
            f"not {per_million_tokens!r}"
        )
    return UsePrice(each, (float(pair[0]), float(pair[1])))


def _is_price(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
