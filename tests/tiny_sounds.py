"""Tiny models with random weights for audio."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    VitsConfig,
    VitsModel,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizerFast,
    set_seed,
)

from tests import tiny_models

if TYPE_CHECKING:
    from pathlib import Path

SMALL = tiny_models.SMALL
_MELS = 8


def letter_recognizer(folder: Path) -> Path:
    """Create a model that recognizes letters, with CTC."""
    set_seed(0)
    folder.mkdir()
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", "A", "B", "C"]
    (folder / "vocab.json").write_text(json.dumps({letter: number for number, letter in enumerate(letters)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    model = Wav2Vec2ForCTC(tiny_models.wav2vec2_config())
    return tiny_models.save(folder, model, Wav2Vec2FeatureExtractor(), tokenizer)


def speech_writer(folder: Path) -> Path:
    """Create a model that transcribes audio: Whisper."""
    set_seed(0)
    config = WhisperConfig(
        vocab_size=400,
        num_mel_bins=_MELS,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_source_positions=100,
        max_target_positions=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    tokenizer = tiny_models.tokenizer()
    made = WhisperTokenizerFast(tokenizer_object=tokenizer._tokenizer, pad_token=tokenizer.pad_token)
    hears = WhisperFeatureExtractor(feature_size=_MELS, chunk_length=2)
    return tiny_models.save(folder, WhisperForConditionalGeneration(config), WhisperProcessor(hears, made))


def sound_and_text(folder: Path) -> Path:
    set_seed(0)
    tokenizer = tiny_models.tokenizer()
    tokenizer.model_max_length = 64
    size: dict[str, Any] = {"feature_size": 16, "hop_length": 160, "fft_window_size": 400, "max_length_s": 1}
    hears = ClapFeatureExtractor(
        **size, sampling_rate=16000, truncation="rand_trunc", frequency_min=50, frequency_max=8000
    )
    sound = {
        "window_size": 2,
        "num_mel_bins": 16,
        "spec_size": 64,
        "hop_length": 160,
        "patch_size": 2,
        "patch_stride": [2, 2],
        "patch_embeds_hidden_size": 8,
        "depths": [1, 1],
        "num_attention_heads": [1, 2],
        "num_hidden_layers": 2,
        "hidden_size": 16,
        "num_classes": 2,
        "enable_fusion": False,
    }
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 80, "pad_token_id": 0, **SMALL}
    config = ClapConfig(text_config=text, audio_config=sound, projection_dim=16)
    return tiny_models.save(folder, ClapModel(config), hears, tokenizer)


def speaker(folder: Path) -> Path:
    set_seed(0)
    config = VitsConfig(
        vocab_size=len(tiny_models.tokenizer()),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        window_size=2,
        ffn_dim=16,
        flow_size=16,
        spectrogram_bins=9,
        prior_encoder_num_flows=1,
        upsample_initial_channel=16,
        upsample_rates=[4, 4],
        upsample_kernel_sizes=[8, 8],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1]],
        depth_separable_num_layers=1,
        duration_predictor_flow_bins=4,
        duration_predictor_num_flows=2,
        duration_predictor_filter_channels=8,
        posterior_encoder_num_wavenet_layers=1,
        wavenet_dilation_rate=1,
    )
    return tiny_models.save(folder, VitsModel(config), tiny_models.tokenizer())


def listener(folder: Path) -> Path:
    """Create a model that continues a text about what it hears."""
    set_seed(0)
    tokenizer = tiny_models.tokenizer()
    tokenizer.add_tokens(["<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"], special_tokens=True)
    hears = {"num_mel_bins": _MELS, "max_source_positions": 100, "d_model": 32, "encoder_layers": 1}
    heads = {"encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    writes = {"model_type": "qwen2", "vocab_size": len(tokenizer), "num_key_value_heads": 2, **SMALL}
    config = Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", **hears, **heads},
        text_config={**writes, "pad_token_id": 0, "eos_token_id": 2},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    processor = Qwen2AudioProcessor(WhisperFeatureExtractor(feature_size=_MELS, chunk_length=2), tokenizer)
    return tiny_models.save(folder, Qwen2AudioForConditionalGeneration(config), processor)
