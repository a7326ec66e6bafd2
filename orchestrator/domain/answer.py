"""An answer with its token counts and its notes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Note(StrEnum):
    """A flaw of an answer that was still accepted; counted in report, status and manifest.

    An answer stores the note as one word, followed by the limit if it is known: `input_cut:512`.
    """

    INPUT_CUT = "input_cut"  # the model saw only part of the input
    CUT = "cut"  # the answer ends at its token limit
    EMPTY = "empty"  # the answer is an empty text
    FIRST = "first"  # the server returned several answers to a request for one; the first is kept


_WORDS = {
    Note.INPUT_CUT: ("input was cut to {}", "inputs were cut to {}"),
    Note.CUT: ("answer was cut at its token limit", "answers were cut at their token limit"),
    Note.EMPTY: ("answer is an empty text", "answers are empty texts"),
    Note.FIRST: ("answer is the first of several returned", "answers are the first of several returned"),
}

_MOST_TOKENS = 2**32  # per request: a larger number is not a token count, and sums over a run have to fit in 64 bits


@dataclass(frozen=True, slots=True)
class Answer:
    """What a data plane returns for one request if it has more than the bare answer.

    `tokens_in`, `tokens_out`: the tokens it used, if the server reports them. If a body carried several requests, each
    gets a share of the body's tokens; the shares add up to the reported number.
    `text`: the value's JSON on one line as the server wrote it, if it is to be stored so: `1E5` stays `1E5`.
    """

    value: object
    tokens_in: int | None = None
    tokens_out: int | None = None
    notes: frozenset[str] = frozenset()
    text: str | None = field(default=None, compare=False)


def input_cut_to(tokens: int) -> str:
    """Return the note for an input that was cut to this many tokens."""
    return f"{Note.INPUT_CUT}:{tokens}"


def noted_words(noted: Mapping[str, int], run_id: int) -> list[str]:
    """Return one line for each note (`3 inputs were cut to 512 tokens`) and the command that lists the items."""
    lines = []
    for word, number in noted.items():
        kind, _, limit = word.partition(":")
        most = f"{limit} tokens" if limit else "what the model takes"  # older ledgers do not store the limit
        lines.append(f"{number:,} {_WORDS[Note(kind)][number != 1].format(most)}")
    return [*lines, f"list them: orchestrator items {run_id} --noted"] if lines else []


def by_name(noted: Mapping[str, int]) -> dict[str, int]:
    """Return the number of notes of each kind, over all limits, for JSON."""
    totals = Counter[str]()
    for word, number in noted.items():
        totals[word.partition(":")[0]] += number
    return dict(totals)


def tokens_of(reported: object) -> int | None:
    """Return the token count that a server reported; None if the value is not a plausible token count."""
    return reported if type(reported) is int and 0 <= reported < _MOST_TOKENS else None
