"""Tiny vision models with random weights, each with the smallest architecture for its task."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForQuestionAnswering,
    BlipProcessor,
    CLIPConfig,
    CLIPModel,
    GLPNConfig,
    GLPNForDepthEstimation,
    LayoutLMConfig,
    LayoutLMForQuestionAnswering,
    OwlViTConfig,
    OwlViTForObjectDetection,
    SamConfig,
    SamModel,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SuperGlueConfig,
    SuperGlueForKeypointMatching,
    SuperPointConfig,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    ViltConfig,
    ViltForQuestionAnswering,
    ViltProcessor,
    ViTModel,
    YolosConfig,
    YolosForObjectDetection,
    set_seed,
)

from tests import tiny_models

if TYPE_CHECKING:
    from pathlib import Path

SMALL = tiny_models.SMALL
SIDE = 16
_SEES: dict[str, Any] = {**SMALL, "image_size": SIDE, "patch_size": 8}
_PYRAMID: dict[str, Any] = {
    "hidden_sizes": [8, 8, 16, 16],
    "num_attention_heads": [1, 1, 2, 2],
    "depths": [1, 1, 1, 1],
    "decoder_hidden_size": 16,
}


def embedder(folder: Path) -> Path:
    set_seed(0)
    return tiny_models.save(folder, ViTModel(tiny_models.vit_config()), _processor("vit", "ViT"))


def segmenter(folder: Path) -> Path:
    set_seed(0)
    model = SegformerForSemanticSegmentation(SegformerConfig(num_labels=3, **_PYRAMID))
    return tiny_models.save(folder, model, _processor("segformer", "Segformer", 32))


def detector(folder: Path) -> Path:
    set_seed(0)
    config = YolosConfig(**{**_SEES, "image_size": [32, 32]}, num_detection_tokens=5, num_labels=2)
    return tiny_models.save(folder, YolosForObjectDetection(config), _processor("yolos", "Yolos", 32))


def depth_estimator(folder: Path) -> Path:
    set_seed(0)
    return tiny_models.save(folder, GLPNForDepthEstimation(GLPNConfig(**_PYRAMID)), _processor("glpn", "GLPN", None))


def image_and_text(folder: Path) -> Path:
    set_seed(0)
    tokenizer = tiny_models.tokenizer()
    tokenizer.model_max_length = 64
    config = CLIPConfig(text_config=_text(64), vision_config=_SEES, projection_dim=16)
    return tiny_models.save(folder, CLIPModel(config), _processor("clip", "CLIP", crop=True), tokenizer)


def detector_by_text(folder: Path) -> Path:
    set_seed(0)
    tokenizer = tiny_models.tokenizer()
    tokenizer.model_max_length = 16
    config = OwlViTConfig(text_config=_text(16), vision_config=_SEES, projection_dim=SMALL["hidden_size"])
    return tiny_models.save(folder, OwlViTForObjectDetection(config), _processor("owlvit", "OwlViT"), tokenizer)


def mask_maker(folder: Path) -> Path:
    set_seed(0)
    sees = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    more = {"output_channels": 16, "mlp_dim": 16, "window_size": 2, "global_attn_indexes": [0], "num_pos_feats": 8}
    prompts = {"hidden_size": 16, "image_size": 32, "patch_size": 8, "mask_input_channels": 4}
    decodes = {"hidden_size": 16, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    head = {"iou_head_hidden_dim": 16, "iou_head_depth": 2}
    config = SamConfig(
        vision_config={**sees, **more}, prompt_encoder_config=prompts, mask_decoder_config={**decodes, **head}
    )
    square = {"height": 32, "width": 32}
    processor = _kind("sam", "Sam")(
        size={"longest_edge": 32},
        pad_size=square,
        mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    )
    return tiny_models.save(folder, SamModel(config), processor)


def matcher(folder: Path) -> Path:
    set_seed(0)
    points = SuperPointConfig(
        encoder_hidden_sizes=[8, 8, 8, 8],
        decoder_hidden_size=8,
        descriptor_decoder_dim=16,
        max_keypoints=5,
        keypoint_threshold=0.0,
        border_removal_distance=0,
    )
    config = SuperGlueConfig(
        keypoint_detector_config=points,
        hidden_size=16,
        keypoint_encoder_sizes=[8],
        gnn_layers_types=["self", "cross"],
        num_attention_heads=2,
        sinkhorn_iterations=3,
        matching_threshold=0.0,
    )
    return tiny_models.save(folder, SuperGlueForKeypointMatching(config), _processor("superglue", "SuperGlue", 32))


def document_reader(folder: Path) -> Path:
    set_seed(0)
    tokenizer = tiny_models.tokenizer()
    tokenizer.model_max_length = 64
    config = LayoutLMConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **SMALL)
    return tiny_models.save(folder, LayoutLMForQuestionAnswering(config), tokenizer)


def video_classifier(folder: Path) -> Path:
    set_seed(0)
    config = VideoMAEConfig(**_SEES, num_frames=2, tubelet_size=1)
    return tiny_models.save(
        folder, VideoMAEForVideoClassification(config), _processor("videomae", "VideoMAE", crop=True)
    )


def captioner(folder: Path) -> Path:
    """Create a model that describes an image, with or without a prompt."""
    return _blip(folder, BlipForConditionalGeneration)


def answerer(folder: Path) -> Path:
    """Create a model that answers a question about an image with text."""
    return _blip(folder, BlipForQuestionAnswering)


def chooser(folder: Path) -> Path:
    """Create a model that chooses an answer to a question about an image."""
    set_seed(0)
    names = {0: "yes", 1: "no", 2: "two"}
    config = ViltConfig(
        vocab_size=len(tiny_models.tokenizer()),
        max_position_embeddings=40,
        max_image_length=-1,
        id2label=names,
        label2id={name: number for number, name in names.items()},
        **_SEES,
    )
    images = _kind("vilt", "Vilt")(size={"shortest_edge": SIDE}, size_divisor=8)
    return tiny_models.save(
        folder, ViltForQuestionAnswering(config), ViltProcessor(images, tiny_models.tokenizer(marked=True))
    )


def _blip(folder: Path, kind: type) -> Path:
    set_seed(0)
    config = BlipConfig(
        text_config={**_text(64), "encoder_hidden_size": SMALL["hidden_size"], "sep_token_id": 4},
        vision_config=_SEES,
        projection_dim=16,
        image_text_hidden_size=16,
    )
    processor = BlipProcessor(_processor("blip", "Blip"), tiny_models.tokenizer(marked=True))
    return tiny_models.save(folder, kind(config), processor)


def _text(positions: int) -> dict[str, Any]:
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return {"vocab_size": len(tiny_models.tokenizer()), "max_position_embeddings": positions, **ids, **SMALL}


def _kind(module: str, name: str) -> Any:
    """Return the processor that needs no torchvision."""
    return getattr(
        import_module(f"transformers.models.{module}.image_processing_pil_{module}"), f"{name}ImageProcessorPil"
    )


def _processor(module: str, name: str, side: int | None = SIDE, *, crop: bool = False) -> Any:
    square = {"height": side, "width": side}
    if side is None:
        return _kind(module, name)()
    if crop:
        return _kind(module, name)(size={"shortest_edge": side}, crop_size=square)
    return _kind(module, name)(size=square)
