"""AnswerFormat: how a model's text is read: as text, as the JSON in it, or as JSON that matches a schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from orchestrator.domain.answer import Answer
from orchestrator.wires.answers import bad, with_usage
from orchestrator.wires.endings import cut_short
from orchestrator.wires.extract import found_json, is_json
from orchestrator.wires.reask import Unfit
from orchestrator.wires.schema import Schema

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """`schema`: what the JSON has to match. `extract`: where it may be. `reasks`: how often a mismatch is sent back.

    `turns`: the key of the conversation in a body, to which the mismatch and its error are added.
    """

    schema: Schema | None
    extract: Literal["json"] | None
    reasks: int
    turns: Literal["messages", "input"]

    @classmethod
    def of(
        cls,
        response_format: object,
        extract: Literal["json"] | None,
        reasks: int,
        turns: Literal["messages", "input"],
    ) -> AnswerFormat:
        """Return the format that these settings of a wire describe. Raises `ValueError` if they are invalid."""
        if extract not in (None, "json"):
            raise ValueError(f"extract must be 'json', not {extract!r}")
        if type(reasks) is not int or reasks < 0:
            raise ValueError(f"reasks must be a whole number of at least 0, not {reasks!r}")
        schema = None if response_format is None else Schema.of(response_format)
        return cls(schema, extract, reasks, turns)

    @property
    def identity(self) -> Mapping[str, object]:
        """Everything except `reasks`, which does not shape a valid answer."""
        optional = {"response_format": None if self.schema is None else self.schema.schema, "extract": self.extract}
        return {key: value for key, value in optional.items() if value is not None}

    @property
    def is_json(self) -> bool:
        """Whether the answer is JSON inside the text; otherwise it is the text, or the model's tool calls."""
        return self.schema is not None or self.extract is not None

    def read(self, said: str | Answer, usage: list[object], limit: str) -> list[object]:
        """Return the answer in a text. A text that was cut (an `Answer`) counts as text, but not as JSON.

        Raises `Unfit` if asking again with the reason may help.
        """
        if not self.is_json:
            return with_usage([said], *usage)
        if isinstance(said, Answer):
            raise cut_short("before its JSON does", limit)
        return with_usage([self._json(said, usage)], *usage)

    def _json(self, text: str, usage: list[object]) -> object:
        if self.schema is None:
            value = found_json(text)
            if value is None:
                raise bad(f"no JSON in the answer: {text[:200]}")
            return value
        whole, value = is_json(text)
        if not whole:
            value = found_json(text)
            if value is None:
                raise self._unfit("there is no JSON in it", text, usage)
        if complaint := self.schema.complaint(value):
            raise self._unfit(complaint, text, usage)
        return value

    def _unfit(self, reason: str, text: str, usage: list[object]) -> Unfit:
        return Unfit(reason, text, self.reasks, usage, self.turns)
