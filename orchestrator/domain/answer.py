"""An answer together with what it cost, and what there is to note of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Note(StrEnum):
    """What makes an answer less than it seems; counted in report, status and manifest.

    An answer has it as a word: by itself or, where a limit is known, with that: `input_cut:512`.
    """

    INPUT_CUT = "input_cut"  # the model was given only a part of the input
    CUT = "cut"  # the answer ends at its limit of tokens
    EMPTY = "empty"  # the answer is a text without anything in it
    FIRST = "first"  # the server gave several answers where one was asked for, and the first is kept


_WORDS = {
    Note.INPUT_CUT: ("input was cut to {}", "inputs were cut to {}"),
    Note.CUT: ("answer was cut at its limit of tokens", "answers were cut at their limit of tokens"),
    Note.EMPTY: ("answer is an empty text", "answers are empty texts"),
    Note.FIRST: ("answer is the first of several that came", "answers are the first of several that came"),
}

_MOST_TOKENS = 2**32  # of one request: more is no count, and the sums of a run have to stay whole numbers of 64 bits


@dataclass(frozen=True, slots=True)
class Answer:
    """What a data plane gives back for one request where there is more to say than the answer itself.

    `tokens_in`, `tokens_out`: how many it took, where the server says so. A request that was one of several in a body
    has its share of the body's tokens: shares add up to what was said.
    """

    value: object
    tokens_in: int | None = None
    tokens_out: int | None = None
    notes: frozenset[str] = frozenset()


def input_cut_to(tokens: int) -> str:
    """The note of an input of which the model was given so many tokens."""
    return f"{Note.INPUT_CUT}:{tokens}"


def noted_words(noted: Mapping[str, int], run_id: int) -> list[str]:
    """`3 inputs were cut to 512 tokens`: a line for each note, and how the items are listed."""
    lines = []
    for word, number in noted.items():
        kind, _, limit = word.partition(":")
        most = f"{limit} tokens" if limit else "what the model takes"  # older ledgers do not say
        lines.append(f"{number:,} {_WORDS[Note(kind)][number != 1].format(most)}")
    return [*lines, f"list them: orchestrator items {run_id} --noted"] if lines else []


def by_name(noted: Mapping[str, int]) -> dict[str, int]:
    """For JSON: by kind, whatever the limits."""
    found = Counter[str]()
    for word, number in noted.items():
        found[word.partition(":")[0]] += number
    return dict(found)


def tokens_of(said: object) -> int | None:
    """What a server says of the tokens of a request; None where it is no number of tokens."""
    return said if type(said) is int and 0 <= said < _MOST_TOKENS else None
