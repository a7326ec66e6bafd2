"""Tiny models with random weights for the text tasks that transformers 5 dropped, and for decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForQuestionAnswering,
    LlamaConfig,
    LlamaForCausalLM,
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    set_seed,
)

from tests import tiny_models

if TYPE_CHECKING:
    from pathlib import Path

SMALL = tiny_models.SMALL
POSITIONS = 64


def t5(folder: Path, **more: object) -> Path:
    """Create a model without an input limit. `more` is added to its config."""
    set_seed(0)
    size = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    tokenizer = tiny_models.tokenizer()
    config = T5Config(
        vocab_size=len(tokenizer), **size, pad_token_id=0, eos_token_id=2, decoder_start_token_id=0, **more
    )
    return tiny_models.save(folder, T5ForConditionalGeneration(config), tokenizer)


def bart(folder: Path) -> Path:
    """Create a model that accepts POSITIONS tokens."""
    set_seed(0)
    tokenizer = tiny_models.tokenizer(marked=True)
    layers: dict[str, Any] = {
        f"{part}_{name}": 2 for part in ("encoder", "decoder") for name in ("layers", "attention_heads")
    }
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=POSITIONS,
        forced_eos_token_id=2,
        **layers,
        **ids,
    )
    return tiny_models.save(folder, BartForConditionalGeneration(config), tokenizer)


def many_languages(folder: Path) -> Path:
    """Create a model that must be told its source and target language."""
    set_seed(0)
    tokenizer = MBart50Tokenizer()
    layers: dict[str, Any] = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 32, "max_position_embeddings": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}
    config = MBartConfig(vocab_size=len(tokenizer), **layers, **heads, **ids)
    return tiny_models.save(folder, MBartForConditionalGeneration(config), tokenizer)


def span_finder(folder: Path) -> Path:
    """Create a model that accepts POSITIONS tokens."""
    set_seed(0)
    tokenizer = tiny_models.tokenizer(marked=True)
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=POSITIONS, **SMALL)
    return tiny_models.save(folder, BertForQuestionAnswering(config), tokenizer)


def decider(folder: Path) -> Path:
    """Create a language model with one token each for yes and no."""
    set_seed(0)
    tokenizer = tiny_models.tokenizer()
    tokenizer.add_tokens(["Yes", "No"])
    tokenizer.chat_template = tiny_models.CHAT
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=1024, bos_token_id=1, eos_token_id=2, **SMALL
    )
    return tiny_models.save(folder, LlamaForCausalLM(config), tokenizer)
