"""Tiny models with random weights, created in a moment: real files that real pipelines load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tokenizers import ByteLevelBPETokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    TapasConfig,
    TapasForQuestionAnswering,
    TapasTokenizer,
    ViTConfig,
    ViTForImageClassification,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    set_seed,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
CHAT = "{% for m in messages %}{{m['role']}}: {{m['content']}}\n{% endfor %}assistant:"
POSITIONS = 128


class _Saved(Protocol):
    def save_pretrained(self, folder: Path, /) -> object: ...


def text_classifier(folder: Path) -> Path:
    return _bert(folder, BertForSequenceClassification)


def token_classifier(folder: Path) -> Path:
    return _bert(folder, BertForTokenClassification)


def mask_filler(folder: Path) -> Path:
    return _bert(folder, BertForMaskedLM)


def entailment(folder: Path) -> Path:
    labels = {"contradiction": 0, "entailment": 1}
    return _bert(folder, BertForSequenceClassification, label2id=labels, id2label={v: k for k, v in labels.items()})


def encoder(folder: Path) -> Path:
    return _bert(folder, BertModel)


def sentence_encoder(folder: Path, pooling: str) -> Path:
    """Write `encoder` in the layout of sentence-transformers, without a Normalize module."""
    encoder(folder)
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling")]
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16}))
    (folder / "1_Pooling").mkdir()
    dimensions = {"word_embedding_dimension": SMALL["hidden_size"]}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": pooling, **dimensions}))
    return folder


def generator(folder: Path, *, pad_token: bool = True) -> Path:
    """Create a language model with a chat template."""
    set_seed(0)
    words = tokenizer()
    words.chat_template = CHAT
    if not pad_token:
        words.pad_token = None
    config = LlamaConfig(vocab_size=len(words), max_position_embeddings=256, bos_token_id=1, eos_token_id=2, **SMALL)
    return save(folder, LlamaForCausalLM(config), words)


def image_classifier(folder: Path) -> Path:
    set_seed(0)
    processor = ViTImageProcessorPil(size={"height": 16, "width": 16})
    return save(folder, ViTForImageClassification(vit_config()), processor)


def vit_config() -> ViTConfig:
    return ViTConfig(**SMALL, image_size=16, patch_size=8)


def audio_classifier(folder: Path) -> Path:
    set_seed(0)
    return save(folder, Wav2Vec2ForSequenceClassification(wav2vec2_config()), Wav2Vec2FeatureExtractor())


def wav2vec2_config() -> Wav2Vec2Config:
    convolutions: dict[str, Any] = {"conv_dim": (16, 16), "conv_kernel": (10, 8), "conv_stride": (8, 8)}
    positions = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    return Wav2Vec2Config(vocab_size=8, num_feat_extract_layers=2, **SMALL, **convolutions, **positions)


def table_reader(folder: Path) -> Path:
    set_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[EMPTY]", "city", "people", "lima", "bonn", "how", "many"]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    types = [3, 32, 32, 2, 256, 256, 10]
    config = TapasConfig(vocab_size=len(words), max_position_embeddings=64, type_vocab_sizes=types, **SMALL)
    return save(
        folder, TapasForQuestionAnswering(config), TapasTokenizer(str(folder / "vocab.txt"), model_max_length=64)
    )


def _bert(folder: Path, kind: Callable[..., _Saved], **labels: object) -> Path:
    set_seed(0)
    words = tokenizer()
    config = BertConfig(vocab_size=len(words), max_position_embeddings=POSITIONS, **SMALL, **labels)
    return save(folder, kind(config), words)


def tokenizer(*, marked: bool = False) -> PreTrainedTokenizerFast:
    """Create 400 byte-level tokens. `marked` texts begin and end with special tokens, as in BERT."""
    trained = ByteLevelBPETokenizer()
    special = ["<pad>", "<s>", "</s>", "<mask>", "<sep>"]
    trained.train_from_iterator(
        [Path(__file__).read_text()], vocab_size=400, special_tokens=special, show_progress=False
    )
    names = {"pad": "<pad>", "bos": "<s>", "eos": "</s>", "mask": "<mask>", "sep": "<sep>"}
    tokens = {f"{name}_token": token for name, token in names.items()}
    if marked:
        marks = [("<s>", 1), ("<sep>", 4)]
        trained._tokenizer.post_processor = TemplateProcessing("<s> $A <sep>", "<s> $A <sep> $B:1 <sep>:1", marks)
        tokens["cls_token"] = tokens["bos_token"]
    return PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, **tokens)


def save(folder: Path, *parts: _Saved) -> Path:
    for part in parts:
        part.save_pretrained(folder)
    return folder
