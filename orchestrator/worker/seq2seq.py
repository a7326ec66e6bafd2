"""summarization, translation and text2text-generation, which transformers 5 dropped: a text in, a text out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import transformers

from orchestrator.worker.generation import generation_settings, own_tokens
from orchestrator.worker.model import Parameters, Ready, Rejected, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ANSWER = {"summarization": "summary", "text2text-generation": "generated", "translation": "translation"}
_LANGUAGES = 4  # parts of translation_xx_to_yy
_TOKENIZING = frozenset({"truncation", "max_input_length", "src_lang", "tgt_lang"})
_DECODING = frozenset({"return_tensors", "return_text", "clean_up_tokenization_spaces"})


class Seq2SeqModel:
    """An encoder-decoder and its tokenizer. One list of `{"summary_text"}` (or the like) for every text."""

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - untyped library
        tokenizer: Any,  # noqa: ANN401 - untyped library
        task: str,
        budget: int,
        info: Mapping[str, object],
    ) -> None:
        self.task = task
        self.info = info
        self.budget = budget
        self._model = model
        self._tokenizer = tokenizer
        kind, _, languages = task.partition("_")
        self._answer = _ANSWER[kind]
        self._languages = languages.split("_to_") if languages else [None, None]
        self._limit: int | None = getattr(model.config, "max_position_embeddings", None)
        specific = getattr(model.config, "task_specific_params", None) or {}
        self._defaults = {**(specific.get(task) or {})}  # how T5 says what it was trained to be asked
        self._prefix: str = self._defaults.pop("prefix", None) or getattr(model.config, "prefix", None) or ""

    def prepare(self, values: Sequence[object], parameters: Parameters) -> Sequence[Ready | Rejected]:
        """Tokenize. What is longer than the model's positions is refused unless `truncation` is set."""
        texts = [self._prefix + value for value in values if isinstance(value, str)]
        try:
            inputs = self._tokenize(texts, parameters) if texts else {"input_ids": []}
        except (TypeError, ValueError, KeyError) as error:  # texts are texts: the parameters are wrong
            return [Rejected(one_line(error)) for _ in values]
        ids, first = iter(inputs["input_ids"]), inputs.get("forced_bos_token_id")
        return [
            self._fitting(next(ids), first) if isinstance(value, str) else Rejected(f"{self.task} takes a text")
            for value in values
        ]

    def _tokenize(self, texts: list[str], parameters: Parameters) -> Mapping[str, Any]:
        cut = parameters.get("truncation", False)
        options = {"truncation": cut, **({"max_length": self._limit} if cut and self._limit else {})}
        source = parameters.get("src_lang", self._languages[0])
        target = parameters.get("tgt_lang", self._languages[1])
        if self._answer == "translation" and hasattr(self._tokenizer, "_build_translation_inputs"):
            made: Mapping[str, Any] = self._tokenizer._build_translation_inputs(  # noqa: SLF001 - as the pipeline did
                texts, return_tensors=None, src_lang=source, tgt_lang=target, **options
            )
            return made
        plain: Mapping[str, Any] = self._tokenizer(texts, **options)
        return plain

    def _fitting(self, ids: list[int], first: int | None) -> Ready | Rejected:
        if self._limit and len(ids) > self._limit:
            return Rejected(f"{len(ids)} tokens; the model takes {self._limit} (set the parameter truncation to cut)")
        return Ready((ids, first), len(ids))

    def call(self, values: Sequence[Any], parameters: Parameters) -> Sequence[object]:
        """Generate for a batch, greedily or with the model's own beams, unless told to sample."""
        decoding = {key: parameters[key] for key in _DECODING & parameters.keys()}
        given = {key: value for key, value in parameters.items() if key not in _TOKENIZING | _DECODING}
        settings = generation_settings(self._model, self._tokenizer, self._defaults, given)
        if values[0][1] is not None:
            settings["forced_bos_token_id"] = values[0][1]  # the language to translate into
        inputs = self._tokenizer.pad({"input_ids": [ids for ids, _ in values]}, return_tensors="pt")
        inputs = {key: inputs[key].to(self._model.device) for key in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            made = self._model.generate(**inputs, **settings)
        each = made.reshape(len(values), -1, made.shape[-1])
        return [[self._record(ids, decoding) for ids in own_tokens(self._model, rows)] for rows in each]

    def _record(self, ids: torch.Tensor, decoding: Parameters) -> Mapping[str, object]:
        if decoding.get("return_tensors"):
            return {f"{self._answer}_token_ids": ids}
        clean = bool(decoding.get("clean_up_tokenization_spaces"))
        text = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=clean)
        return {f"{self._answer}_text": text}


def load_seq2seq(
    source: str,
    options: Mapping[str, Any],
    dtype: str,
    device: torch.device,
) -> tuple[Any, Any]:
    """The model on its device, and its tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(source, dtype=dtype, **options)
    return model.to(device).eval(), tokenizer
