"""Detects inputs that a tokenizer cuts, because the tokenizer does not report it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from transformers.tokenization_utils_base import PaddingStrategy, TruncationStrategy

from orchestrator.worker.model import Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TAPAS_ROW = 2  # the place of the row's number among a token's types


class Cut(NamedTuple):
    """How long an input was, and how much of it the model received, in tokens."""

    length: int
    limit: int

    def refused(self) -> Rejected:
        """Return the refusal, for requests that want nothing cut."""
        return Rejected(f"{self.length} tokens; the model takes {self.limit}, and truncation is false")


def table_cut(pipe: Any, value: Any) -> Cut | None:
    """Return what the table question answering pipeline would cut from one input: whole rows at the end of tables.

    Only TAPAS drops rows; its token types say to which row of the table, counted from 1, a token belongs.
    """
    if pipe.type != "tapas":
        return None
    cuts = []
    for asked in pipe._args_parser(value):
        table, query = asked["table"], asked["query"]
        kept = pipe.tokenizer(table, query, truncation="drop_rows_to_fit")
        if max(types[_TAPAS_ROW] for types in kept["token_type_ids"]) < len(table):
            whole = pipe.tokenizer(table, query, truncation="do_not_truncate")
            cuts.append(Cut(len(whole["input_ids"]), pipe.tokenizer.model_max_length))
    return max(cuts, default=None)


class CutWatch:
    """Records what a tokenizer cuts: an input that comes out as long as allowed is encoded again without a limit."""

    def __init__(self, tokenizer: Any) -> None:
        self._encode = tokenizer._encode_plus
        self._seen: list[Cut | None] = []
        self._inside = False
        tokenizer._encode_plus = self._watched

    def taken(self) -> list[Cut | None]:
        """Return an entry for each text encoded since the last call: what was cut, or None."""
        seen, self._seen = self._seen, []
        return seen

    def longest(self) -> Cut | None:
        """Return the longest input that was cut since the last call."""
        return max(filter(None, self.taken()), default=None)

    def _watched(self, text: Any, text_pair: Any = None, **options: Any) -> Any:
        if self._inside:  # it calls itself
            return self._encode(text, text_pair, **options)
        self._inside = True
        try:
            made = self._encode(text, text_pair, **options)
            self._seen += self._cuts(made["input_ids"], text, text_pair, options)
        finally:
            self._inside = False
        return made

    def _cuts(self, ids: Any, text: Any, text_pair: Any, options: Mapping[str, Any]) -> list[Cut | None]:
        rows, limit = _rows(ids), options.get("max_length")
        if (
            not limit
            or options.get("truncation_strategy") in {None, TruncationStrategy.DO_NOT_TRUNCATE}
            or options.get("return_overflowing_tokens")  # the rest is in rows of its own
        ):
            return [None] * len(rows)
        return [
            self._cut(_one(text, text_pair, place, len(rows)), limit, options) if len(row) >= limit else None
            for place, row in enumerate(rows)
        ]

    def _cut(self, texts: Sequence[Any], limit: int, options: Mapping[str, Any]) -> Cut | None:
        entire = {
            **options,
            "truncation_strategy": TruncationStrategy.DO_NOT_TRUNCATE,
            "padding_strategy": PaddingStrategy.DO_NOT_PAD,
            "return_tensors": None,
            "max_length": None,
        }
        (row,) = _rows(self._encode(*texts, **entire)["input_ids"])
        return Cut(len(row), limit) if len(row) > limit else None


def _rows(ids: Any) -> Sequence[Any]:
    return ids if len(ids) and hasattr(ids[0], "__len__") else [ids]


def _one(text: Any, text_pair: Any, place: int, of: int) -> tuple[Any, Any]:
    """Return the text at that place, and its pair."""
    if of == 1:
        return text, text_pair
    return text[place], None if text_pair is None else text_pair[place]
