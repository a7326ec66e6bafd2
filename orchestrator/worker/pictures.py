"""visual-question-answering and image-to-text, which transformers 5 dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from transformers.image_utils import load_image

from orchestrator.worker.files import open_files
from orchestrator.worker.generation import generation_settings, own_tokens
from orchestrator.worker.model import Loaded, Parameters, PreparedInput, Rejected, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

_IMAGE_TOKENS = 256  # an estimate
_TOP_K = 5
_NO_SETTINGS = frozenset({"top_k", "timeout", "prompt"})


class PictureModel:
    """A vision model and its processor.

    `{"image", "question"}` -> `[{"score", "answer"}]`, best first, if the model chooses from a list of answers, or
    `[{"answer"}]` if it generates one. For image-to-text, an image -> `[{"generated_text"}]`.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.task = loaded.task
        self.info = loaded.info
        self.budget = loaded.budget
        self._model = loaded.model
        self._processor = loaded.processor
        self._tokenizer = loaded.processor.tokenizer

    def prepare(self, values: Sequence[object], parameters: Parameters) -> Sequence[PreparedInput | Rejected]:
        """Open the images: files, paths, URLs or base64."""
        return [self._prepare(value, parameters) for value in values]

    def _prepare(self, value: object, parameters: Parameters) -> PreparedInput | Rejected:
        image, text = value, parameters.get("prompt")
        if self.task == "visual-question-answering":
            if not isinstance(value, dict) or value.keys() != {"image", "question"}:
                return Rejected(f"{self.task} takes an object with image and question")
            image, text = value["image"], value["question"]
        if text is not None and not isinstance(text, str):
            return Rejected(f"{'prompt' if self.task == 'image-to-text' else 'question'} must be a text")
        try:
            image = open_files(image, None)
            image = image if isinstance(image, Image.Image) else _fetched(image, parameters)
        except Rejected as error:
            return error
        return PreparedInput((image, text), _IMAGE_TOKENS + len(text or "") // 4)

    def collate(self, values: Sequence[Any], _parameters: Parameters) -> Any:
        """Make tensors; the image processor handles images of different sizes."""
        images, texts = [image for image, _ in values], [text for _, text in values]
        asked = {} if texts[0] is None else {"text": texts, "padding": True}
        inputs = self._processor(images=images, return_tensors="pt", **asked)
        inputs.pop("token_type_ids", None) if self._model.can_generate() else None
        return inputs

    def call(self, batch: Any, parameters: Parameters) -> Sequence[object]:
        """Answer a batch by choosing or generating."""
        inputs = batch.to(self._model.device, dtype=self._model.dtype)
        with torch.inference_mode():
            if not self._model.can_generate():
                return self._ranked(self._model(**inputs).logits, parameters)
            given = {name: value for name, value in parameters.items() if name not in _NO_SETTINGS}
            made = self._model.generate(**inputs, **generation_settings(self._model, self._tokenizer, {}, given))
        each = made.reshape(len(inputs["pixel_values"]), -1, made.shape[-1])
        name = "answer" if self.task == "visual-question-answering" else "generated_text"
        return [[{name: text} for text in self._texts(rows)] for rows in each]

    def _ranked(self, logits: torch.Tensor, parameters: Parameters) -> Sequence[object]:
        count = min(parameters.get("top_k", _TOP_K), logits.shape[-1])
        names = self._model.config.id2label
        scores, ids = logits.float().sigmoid().topk(count)
        return [
            [{"score": score, "answer": names[place]} for score, place in zip(*row, strict=True)]
            for row in zip(scores.tolist(), ids.tolist(), strict=True)
        ]

    def _texts(self, rows: torch.Tensor) -> list[str]:
        return [self._tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in own_tokens(self._model, rows)]


def _fetched(value: object, parameters: Parameters) -> Image.Image:
    if not isinstance(value, str):
        raise Rejected("an image is a file, a path, a URL, or base64")
    try:
        image: Image.Image = load_image(value, timeout=parameters.get("timeout"))
    except Exception as error:
        raise Rejected(one_line(error)) from error
    return image
