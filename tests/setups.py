"""What users do with a pipeline before they call it; the same for diffusers' pipelines and ours."""

import tempfile
from collections.abc import Callable

import numpy as np
import torch
from diffusers import (
    DiffusionPipeline,
    FasterCacheConfig,
    PyramidAttentionBroadcastConfig,
    SchedulerMixin,
    TaylorSeerCacheConfig,
    UniPCMultistepScheduler,
)

from tests.pairs import seeded
from videogen.pipelines.base import VideoPipeline

EVERY = (-1, 1001)  # timesteps, ends excluded
BLOCKS = ("blocks",)


def scheduled(new: Callable[[SchedulerMixin], SchedulerMixin]) -> Callable[[DiffusionPipeline], None]:
    """Set a scheduler that is made of the pipeline's."""

    def setup(pipe):
        pipe.scheduler = new(pipe.scheduler)

    return setup


class SameLevels(UniPCMultistepScheduler):
    """The scheduler at the published noise levels, whatever the pipeline asks for."""

    def set_timesteps(self, num_inference_steps=None, **options):
        levels = np.linspace(float(np.float32(0.999)), 0, num_inference_steps + 1)[:-1]
        super().set_timesteps(sigmas=levels, device=options.get("device"))


def published(pipe):
    """Let a pipeline of ours choose its noise levels."""
    if isinstance(pipe, VideoPipeline):
        pipe.scheduler = None


def same_levels(pipe):
    """Let a pipeline of ours choose its noise levels, and give them to diffusers' too."""
    published(pipe)
    if type(pipe.scheduler) is UniPCMultistepScheduler:
        pipe.scheduler = SameLevels.from_config(pipe.scheduler.config)


def lora(*then: Callable[[DiffusionPipeline], object]) -> Callable[[DiffusionPipeline], None]:
    """Load two LoRAs, then do what follows."""

    def setup(pipe):
        for seed, name in enumerate(("first", "second")):
            pipe.load_lora_weights(lora_of(pipe.transformer, seed), adapter_name=name)
        for step in then:
            step(pipe)

    return setup


def lora_of(transformer, seed):
    """Return a LoRA of one layer."""
    wan = hasattr(transformer, "blocks")
    layer = "blocks.0.attn1.to_v" if wan else "transformer_blocks.0.attn.to_v"
    (rows, columns), generator = transformer.get_submodule(layer).weight.shape, seeded(seed)
    return {
        f"transformer.{layer}.lora_A.weight": torch.randn(4, columns, generator=generator) / 2,
        f"transformer.{layer}.lora_B.weight": torch.randn(rows, 4, generator=generator) / 2,
    }


def saved(pipe):
    """Return the pipeline that is read from what this one wrote."""
    with tempfile.TemporaryDirectory() as folder:
        pipe.save_pretrained(folder)
        opened = type(pipe).from_pretrained(folder)
    opened.set_progress_bar_config(disable=True)
    return opened


def cast(pipe):
    pipe.transformer.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)


def offload(pipe):
    cpu = torch.device("cpu")
    pipe.transformer.enable_group_offload(cpu, cpu, offload_type="leaf_level")


def cached(make: Callable[[DiffusionPipeline], object]) -> Callable[[DiffusionPipeline], None]:
    """Enable a cache whose config is made for the pipeline."""

    def setup(pipe):
        pipe.transformer.enable_cache(make(pipe))

    return setup


def pyramid(pipe):
    return PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        cross_attention_block_skip_range=3,
        spatial_attention_timestep_skip_range=EVERY,
        cross_attention_timestep_skip_range=EVERY,
        spatial_attention_block_identifiers=BLOCKS,
        cross_attention_block_identifiers=BLOCKS,
        current_timestep_callback=lambda: pipe.current_timestep,
    )


def faster(pipe):
    """Return a FasterCache that starts when it has two outputs to extrapolate from."""
    return FasterCacheConfig(
        spatial_attention_timestep_skip_range=(-1, 900),
        spatial_attention_block_identifiers=BLOCKS,
        attention_weight_callback=lambda _: 0.5,
        is_guidance_distilled=True,
        tensor_format="BCFHW",
        current_timestep_callback=lambda: pipe.current_timestep,
    )


def extrapolated(_):
    """Return a TaylorSeer of the layers that our networks and diffusers' both have."""
    return TaylorSeerCacheConfig(
        cache_interval=2,
        disable_cache_before_step=1,
        taylor_factors_dtype=torch.float32,
        cache_identifiers=[r"blocks\.\d+\.attn1"],
    )
