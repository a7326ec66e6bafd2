"""summarization, translation and text2text-generation, which transformers 5 dropped: a text in, a text out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from orchestrator.worker.cutting import Cut, CutWatch
from orchestrator.worker.generation import generation_settings, own_tokens
from orchestrator.worker.limits import LimitWatch
from orchestrator.worker.model import Loaded, Parameters, PreparedInput, Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ANSWER = {"summarization": "summary", "text2text-generation": "generated", "translation": "translation"}
_TOKENIZING = frozenset({"truncation", "max_input_length", "src_lang", "tgt_lang"})
_DECODING = frozenset({"return_tensors", "return_text", "clean_up_tokenization_spaces"})


class Seq2SeqModel:
    """An encoder-decoder and its tokenizer. One list of `{"summary_text"}` (or similar) per text."""

    def __init__(self, loaded: Loaded) -> None:
        self.task = loaded.task
        self.info = loaded.info
        self.budget = loaded.budget
        self._model = loaded.model
        self._limits = LimitWatch(loaded.model)
        self._tokenizer = loaded.processor
        kind, _, languages = self.task.partition("_")
        self._answer = _ANSWER[kind]
        self._languages = languages.split("_to_") if languages else [None, None]
        self._watch = CutWatch(self._tokenizer)
        self._limit: int | None = getattr(self._model.config, "max_position_embeddings", None)
        specific = getattr(self._model.config, "task_specific_params", None) or {}
        self._defaults = {**(specific.get(self.task) or {})}  # where T5 names the prefixes it was trained with
        self._prefix: str = self._defaults.pop("prefix", None) or getattr(self._model.config, "prefix", None) or ""

    def prepare(self, values: Sequence[object], parameters: Parameters) -> Sequence[PreparedInput | Rejected]:
        """Tokenize. A text longer than the model's positions is refused unless `truncation` is set."""
        texts = [self._prefix + value for value in values if isinstance(value, str)]
        self._watch.taken()
        inputs = self._tokenize(texts, parameters) if texts else {"input_ids": []}
        made, first = zip(inputs["input_ids"], self._watch.taken(), strict=True), inputs.get("forced_bos_token_id")
        return [
            self._fitting(*next(made), first) if isinstance(value, str) else Rejected(f"{self.task} takes a text")
            for value in values
        ]

    def _tokenize(self, texts: list[str], parameters: Parameters) -> Mapping[str, Any]:
        cut = parameters.get("truncation", False)
        options = {"truncation": cut, **({"max_length": self._limit} if cut and self._limit else {})}
        source = parameters.get("src_lang", self._languages[0])
        target = parameters.get("tgt_lang", self._languages[1])
        if self._answer == "translation" and hasattr(self._tokenizer, "_build_translation_inputs"):
            made: Mapping[str, Any] = self._tokenizer._build_translation_inputs(
                texts, return_tensors=None, src_lang=source, tgt_lang=target, **options
            )
            return made
        plain: Mapping[str, Any] = self._tokenizer(texts, **options)
        return plain

    def _fitting(self, ids: list[int], cut: Cut | None, first: int | None) -> PreparedInput | Rejected:
        if self._limit and len(ids) > self._limit:
            return Rejected(f"{len(ids)} tokens; the model takes {self._limit} (set the parameter truncation to cut)")
        return PreparedInput((ids, first), len(ids), None if cut is None else cut.limit)

    def collate(self, values: Sequence[Any], _parameters: Parameters) -> tuple[Any, int | None]:
        """Pad, and add the token of the target language if there is one."""
        inputs = self._tokenizer.pad({"input_ids": [ids for ids, _ in values]}, return_tensors="pt")
        return {key: inputs[key] for key in ("input_ids", "attention_mask")}, values[0][1]

    def call(self, batch: tuple[Any, int | None], parameters: Parameters) -> Sequence[object]:
        """Generate for a batch: greedily or with the model's own beams, unless told to sample."""
        decoding = {key: parameters[key] for key in _DECODING & parameters.keys()}
        given = {key: value for key, value in parameters.items() if key not in _TOKENIZING | _DECODING}
        settings = generation_settings(self._model, self._tokenizer, self._defaults, given)
        padded, first = batch
        if first is not None:
            settings["forced_bos_token_id"] = first
        inputs = {key: tensor.to(self._model.device) for key, tensor in padded.items()}
        with torch.inference_mode():
            made = self._model.generate(**inputs, **settings)
        each = made.reshape(len(inputs["input_ids"]), -1, made.shape[-1])
        return self._limits.marked(
            [[self._record(ids, decoding) for ids in own_tokens(self._model, rows)] for rows in each]
        )

    def _record(self, ids: torch.Tensor, decoding: Parameters) -> Mapping[str, object]:
        if decoding.get("return_tensors"):
            return {f"{self._answer}_token_ids": ids}
        clean = bool(decoding.get("clean_up_tokenization_spaces"))
        text = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=clean)
        return {f"{self._answer}_text": text}
