"""The likeliest answer spans of a text, from a model's start and end logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Numbers = np.ndarray[Any, np.dtype[Any]]


class AnswerSpan(NamedTuple):
    """First and last token, and the probability that this is the answer."""

    score: float
    first: int
    last: int


class ContextTokens(NamedTuple):
    """The tokens of one window: their places in the text, the words they belong to, and whether they may be used."""

    offsets: Sequence[tuple[int, int]]
    words: Sequence[int | None]
    allowed: Numbers

    def inside(self) -> Iterator[tuple[int, tuple[int, int]]]:
        """Word and place of those that may be used."""
        for offsets, word, inside in zip(self.offsets, self.words, self.allowed, strict=True):
            if inside and word is not None:
                yield word, offsets


def best_spans(
    start: Numbers, end: Numbers, allowed: Numbers, top_k: int, longest: int
) -> tuple[list[AnswerSpan], float]:
    """Return the `top_k` likeliest spans of one window, and the probability that the window holds no answer.

    `start`, `end`: a logit for every token. `allowed`: which tokens may be in an answer. The first token (CLS) stands
    for "no answer here"; it has a probability but is in no span.
    """
    asked = allowed.copy()
    asked[0] = True
    begins, ends = _softmax(start, asked), _softmax(end, asked)
    nothing = float(begins[0] * ends[0])
    begins, ends = begins * allowed, ends * allowed
    likely = np.tril(np.triu(np.outer(begins, ends)), longest - 1).ravel()
    count = min(top_k, int(np.count_nonzero(likely)))
    places = np.argpartition(-likely, count - 1)[:count] if count else np.empty(0, np.int64)
    firsts, lasts = np.unravel_index(places[np.argsort(-likely[places], kind="stable")], (len(start), len(start)))
    found = [
        AnswerSpan(float(begins[first] * ends[last]), int(first), int(last))
        for first, last in zip(firsts, lasts, strict=True)
    ]
    return found, nothing


def whole_words(windows: Sequence[ContextTokens]) -> list[Numbers]:
    """Return, for every token of each window, where its word begins and ends in the text: [tokens, 2].

    A word cut by the edge of one window is whole in the next.
    """
    edges: dict[int, tuple[int, int]] = {}
    for window in windows:
        for word, (first, last) in window.inside():
            before = edges.get(word, (first, last))
            edges[word] = (min(before[0], first), max(before[1], last))
    return [
        np.array(
            [
                edges[word] if inside and word is not None else offsets
                for offsets, word, inside in zip(window.offsets, window.words, window.allowed, strict=True)
            ]
        )
        for window in windows
    ]


def _softmax(logits: Numbers, allowed: Numbers) -> Numbers:
    likely = np.where(allowed, logits.astype(np.float64), -np.inf)
    likely = np.exp(likely - likely.max())
    return np.asarray(likely / likely.sum())
