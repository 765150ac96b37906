"""Our pipelines beside diffusers' own, with the same tiny weights and the same scheduler."""

import copy
import functools
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from PIL import Image
from torch import nn
from transformers import BatchFeature, CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from videogen.models.hunyuan import tiny as tiny_hunyuan
from videogen.models.tiny import byte_tokenizer
from videogen.pipelines.diffusion_forcing import DiffusionForcingPipeline
from videogen.pipelines.hunyuan_image_to_video import HunyuanImageToVideoPipeline
from videogen.pipelines.image_to_video import ImageToVideoPipeline
from videogen.pipelines.text_to_video import TextToVideoPipeline
from videogen.pipelines.wan22_5b import Wan22TI2V5BPipeline
from videogen.pipelines.wan22_a14b import Wan22A14BPipeline
from videogen.tasks import config

NETWORK = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 32,
    "ffn_dim": 32,
    "num_layers": 2,
}
TRANSFORMERS = {
    "wan": ("Wan", {}),
    "wan low": ("Wan", {}),
    "wan image": ("Wan", {"in_channels": 36}),
    "wan image low": ("Wan", {"in_channels": 36}),
    "wan 5b": ("Wan", {"in_channels": 48, "out_channels": 48}),
    "skyreels": ("SkyReelsV2", {}),
    "skyreels image": ("SkyReelsV2", {"in_channels": 36, "image_dim": 16, "added_kv_proj_dim": 24}),
    "skyreels images": (
        "SkyReelsV2",
        {"in_channels": 36, "image_dim": 16, "added_kv_proj_dim": 24, "pos_embed_seq_len": 10},
    ),
    "skyreels fps": ("SkyReelsV2", {"inject_sample_info": True}),
}
STRIDES = {"temperal_downsample": [False, True, True], "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
VAES = {
    "vae": {"base_dim": 3, "z_dim": 16},
    "vae 5b": {
        **{"base_dim": 3, "z_dim": 48, "in_channels": 12, "out_channels": 12, "is_residual": True},
        **{"patch_size": 2, "latents_mean": [0.0] * 48, "latents_std": [1.0] * 48},
        "scale_factor_spatial": 16,
    },
}
OURS = (
    "boundary",
    "causal_attention",
    "i2v_stability",
    "no_riflex",
    "shift",
)  # not arguments of diffusers' calls
SIDE = 16  # of the image encoder's pictures


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomized(module: nn.Module) -> nn.Module:
    """Initialize weights that keep signals at unit scale."""
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1 and "table" not in name:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return module.eval()


def published_pixels(images: Image.Image | list[Image.Image], **_: object) -> BatchFeature:
    """Prepare pictures for the image encoder as the published code does, in place of diffusers' way."""
    every = np.stack([np.array(image) for image in (images if isinstance(images, list) else [images])])
    pixels = torch.from_numpy(every).permute(0, 3, 1, 2) / 255
    square = nn.functional.interpolate(pixels * 2 - 1, size=(SIDE, SIDE), mode="bicubic", align_corners=False)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    return BatchFeature({"pixel_values": (square * 0.5 + 0.5 - mean) / std})


@functools.cache
def weights(name: str) -> Mapping[str, object]:
    """Return components by name; those of one model that belong together."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(name.encode()))
        if name in TRANSFORMERS:
            family, changes = TRANSFORMERS[name]
            return {name: randomized(getattr(diffusers, f"{family}Transformer3DModel")(**NETWORK | changes))}
        if name in VAES:
            return {name: randomized(AutoencoderKLWan(**STRIDES, **VAES[name]))}
        if name == "text":
            sizes = UMT5Config(vocab_size=300, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4)
            return {"tokenizer": byte_tokenizer(), "text_encoder": randomized(UMT5EncoderModel(sizes))}
        if name == "clip":
            sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
            shape = {"num_attention_heads": 2, "image_size": SIDE, "patch_size": 8}
            return {name: randomized(CLIPVisionModel(CLIPVisionConfig(**sizes, **shape)))}
        made = tiny_hunyuan.parts(config.read_tiny(name))
        return {part: randomized(module) for part, module in made.modules.items()} | {**made.beside}


@dataclass(frozen=True)
class Pair:
    """Two pipelines of one model.

    Args:
        ours: our class.
        theirs: name of diffusers' class.
        parts: component -> name of its weights.
        more: what only diffusers' constructor takes.
        call: arguments of every call.
        renamed: our argument -> diffusers' name for it; None: diffusers has none.
    """

    ours: type
    theirs: str
    parts: Mapping[str, str]
    more: Mapping[str, object] = field(default_factory=dict)
    call: Mapping[str, object] = field(default_factory=dict)
    renamed: Mapping[str, str | None] = field(default_factory=dict)

    def build(self) -> tuple[diffusers.DiffusionPipeline, diffusers.DiffusionPipeline]:
        """Return (ours, theirs), each with its own copy of the weights."""
        pair = (self.ours, {}), (getattr(diffusers, self.theirs), self.more)
        return tuple(self._one(kind, more) for kind, more in pair)

    def _one(self, kind: type, more: Mapping[str, object]) -> diffusers.DiffusionPipeline:
        pipeline = kind(**self.components(), **more)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def components(self) -> dict[str, object]:
        """Return components with weights of their own, and a scheduler."""
        found = {part: weights(name)[name] for part, name in self.parts.items()}
        return copy.deepcopy({**weights("text"), "scheduler": flow(), **found})

    def as_theirs(self, given: Mapping[str, object]) -> dict[str, object]:
        """Return arguments under diffusers' names."""
        names = {name: self.renamed.get(name, name) for name in given if name not in OURS}
        return {name: given[own] for own, name in names.items() if name is not None}


class HunyuanPair(Pair):
    """Two pipelines of HunyuanVideo, of the components of one tiny model."""

    def components(self) -> dict[str, object]:
        scheduler = FlowMatchEulerDiscreteScheduler(shift=7.0)
        return copy.deepcopy({**weights(self.parts["model"]), "scheduler": scheduler})


def flow(shift: float = 3.0) -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)


def picture(seed: int, side: int = 16) -> Image.Image:
    """Draw a picture of noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


SMALL = {"height": 16, "width": 16, "num_frames": 9, "num_inference_steps": 2, "guidance_scale": 3.0}
TEXT = {**SMALL, "prompt": "a cat", "negative_prompt": "bad"}
WIDE = {**TEXT, "height": 32, "width": 32}
EXPERTS = {"transformer": "wan", "transformer_2": "wan low", "vae": "vae"}
FORCING = {"transformer": "skyreels fps", "vae": "vae"}
HUNYUAN = {
    **{"prompt": "a cat", "height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2},
    **{"embedded_cfg_scale": 6.0, "i2v_stability": True, "no_riflex": True, "guidance_scale": 1.0},
}
DISTILLED = {"guidance_scale": "true_cfg_scale", "embedded_cfg_scale": "guidance_scale"}
BOTH_IMAGES = {"image_encoder": None, "image_processor": None, "boundary_ratio": 0.9}

PAIRS: dict[str, Pair] = {
    "wan": Pair(TextToVideoPipeline, "WanPipeline", {"transformer": "wan", "vae": "vae"}, call=TEXT),
    "experts": Pair(
        Wan22A14BPipeline, "WanPipeline", EXPERTS, {"boundary_ratio": 0.9},
        {**TEXT, "boundary": 0.9},
    ),
    "image": Pair(
        Wan22A14BPipeline, "WanImageToVideoPipeline",
        {"transformer": "wan image", "transformer_2": "wan image low", "vae": "vae"}, BOTH_IMAGES,
        {**TEXT, "image": picture(1), "boundary": 0.9}, {"video": None},
    ),
    "5b": Pair(
        Wan22TI2V5BPipeline, "WanPipeline", {"transformer": "wan 5b", "vae": "vae 5b"},
        {"expand_timesteps": True}, WIDE,
    ),
    "5b image": Pair(
        Wan22TI2V5BPipeline, "WanImageToVideoPipeline", {"transformer": "wan 5b", "vae": "vae 5b"},
        {"expand_timesteps": True, "image_encoder": None, "image_processor": None},
        {**WIDE, "image": picture(1, 32)},
    ),
    "skyreels": Pair(
        TextToVideoPipeline, "SkyReelsV2Pipeline", {"transformer": "skyreels", "vae": "vae"}, call=TEXT
    ),
    "skyreels image": Pair(
        ImageToVideoPipeline, "SkyReelsV2ImageToVideoPipeline",
        {"transformer": "skyreels image", "vae": "vae", "image_encoder": "clip"},
        {"image_processor": published_pixels}, {**TEXT, "image": picture(1)},
    ),
    "skyreels images": Pair(
        ImageToVideoPipeline, "SkyReelsV2ImageToVideoPipeline",
        {"transformer": "skyreels images", "vae": "vae", "image_encoder": "clip"},
        {"image_processor": published_pixels},
        {**TEXT, "image": picture(1), "last_image": picture(2)},
    ),
    "forcing": Pair(
        DiffusionForcingPipeline, "SkyReelsV2DiffusionForcingPipeline", FORCING, call=TEXT
    ),
    "forcing, no rate": Pair(
        DiffusionForcingPipeline, "SkyReelsV2DiffusionForcingPipeline",
        {**FORCING, "transformer": "skyreels"}, call=TEXT,
    ),
    "forcing image": Pair(
        DiffusionForcingPipeline, "SkyReelsV2DiffusionForcingImageToVideoPipeline", FORCING,
        call={**TEXT, "image": picture(1)},
    ),
    "forcing video": Pair(
        DiffusionForcingPipeline, "SkyReelsV2DiffusionForcingVideoToVideoPipeline", FORCING,
        call={**TEXT, "video": [picture(seed) for seed in range(9)], "overlap_history": 5},
    ),
    "replace": HunyuanPair(
        HunyuanImageToVideoPipeline, "HunyuanVideoImageToVideoPipeline", {"model": "hunyuan"},
        call={**HUNYUAN, "image": picture(1, 32)}, renamed=DISTILLED,
    ),
    "concat": HunyuanPair(
        HunyuanImageToVideoPipeline, "HunyuanVideoImageToVideoPipeline", {"model": "hunyuan-latent-concat"},
        call={**HUNYUAN, "image": picture(1, 32)}, renamed=DISTILLED,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Fresh:
    """An argument that is made anew for each pipeline: a generator, or what needs the pipeline."""

    make: Callable[[diffusers.DiffusionPipeline], object]
