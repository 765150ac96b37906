"""CLIP image features for image-conditioned transformers. Spec skyreels_v2 section 8."""

from torch import Tensor
from torch.nn import functional
from transformers import CLIPVisionModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD


def clip_features(encoder: CLIPVisionModel, image: Tensor) -> Tensor:
    """Return features [B, I, image_dim] of images [B, 3, H, W] in [-1, 1]: the second-to-last block's output.

    Images are resized to the encoder's square, bicubic without antialiasing. The stock CLIP processor crops
    and antialiases instead, which changes the features by 40 %.
    """
    side = encoder.config.image_size
    square = functional.interpolate(image, size=(side, side), mode="bicubic", align_corners=False)
    mean, std = (square.new_tensor(values).view(1, 3, 1, 1) for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    pixels = (square * 0.5 + 0.5 - mean) / std
    return encoder(pixels.to(encoder.dtype), output_hidden_states=True).hidden_states[-2]
