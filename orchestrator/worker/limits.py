"""Detects texts that ended at the token limit, because `generate` does not report it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.worker.model import AtLimit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class LimitWatch:
    """Records for each sequence that a model generates whether it has no end token."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._generate = model.generate
        self._seen: list[bool] = []
        model.generate = self._watched

    def marked(self, outputs: Sequence[object]) -> Sequence[object]:
        """Return the outputs of the last call of `generate`, each unchanged or as `AtLimit`."""
        seen, self._seen = self._seen, []
        each = len(seen) // len(outputs) if outputs else 0
        if not each or each * len(outputs) != len(seen):  # they cannot be matched
            return outputs
        return [
            AtLimit(output) if any(seen[place * each : (place + 1) * each]) else output
            for place, output in enumerate(outputs)
        ]

    def _watched(self, *given: Any, **settings: Any) -> Any:
        made = self._generate(*given, **settings)
        prompt = settings.get("input_ids")
        begin = 1 if self._model.config.is_encoder_decoder or prompt is None else prompt.shape[-1]
        ends, padding, most = self._ends(settings)
        self._seen = [_is_cut(row[begin:], ends, padding, most) for row in getattr(made, "sequences", made).tolist()]
        return made

    def _ends(self, settings: Mapping[str, Any]) -> tuple[set[int], int | None, int | None]:
        """Return the end tokens, the padding token, and the limit if only that tells a cut from a stop string."""
        config = settings.get("generation_config") or self._model.generation_config

        def setting(name: str) -> Any:
            found = settings.get(name)
            return getattr(config, name, None) if found is None else found

        ends = setting("eos_token_id")
        stops = setting("stop_strings") or settings.get("stopping_criteria")
        most = (setting("max_new_tokens") or 0) if stops else None
        return set(ends if isinstance(ends, list) else [ends]), setting("pad_token_id"), most


def _is_cut(tokens: Sequence[int], ends: set[int], padding: int | None, most: int | None) -> bool:
    """Whether the sequence was cut: one that ended early is padded; one ended by a stop string is below the limit."""
    if not tokens or tokens[-1] == padding or not ends.isdisjoint(tokens):
        return False
    return most is None or len(tokens) == most
