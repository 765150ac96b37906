"""The published models at full size without their weights: fakes with the names and shapes of the manifests.

The project's own loader builds them. Only where it would read a file (``plan_component``) is it given a fake
tensor; tokenizers, which no manifest holds, are those of the tiny models.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.manifests import CONFIGS, MANIFESTS
from tests.simulated.patches import Patches
from tests.simulated.sim import Sim
from videogen.checkpoints import model_features
from videogen.checkpoints.key_maps import Entry, rename
from videogen.checkpoints.layouts import Checkpoint
from videogen.engine import load, session
from videogen.models import tiny
from videogen.models.components import COMPONENTS, ComponentPlan, build_meta_module
from videogen.models.hunyuan.tiny import template_tokenizer
from videogen.tasks.task_spec import TaskSpec

WAN21_VAE = "skyreels_v3/r2v_vae_diffusers.json"
UMT5 = "skyreels_v3/umt5_xxl_encoder_pth.json"
CLIP = "skyreels_v2/clip-xlm-roberta-vit-h-14.json"
WAN_PARTS = {"vae": WAN21_VAE, "text_encoder": UMT5, "image_encoder": CLIP}
HUNYUAN = {
    "hunyuan_vae": "hunyuan/vae.json",
    "llava": "hunyuan/text_encoder_i2v_llava.json",
    "clip_text": "hunyuan/text_encoder_2_clip.json",
}
EXTENSION = "skyreels_v3/extension_transformer_14b.json"
# Published model -> component -> manifest, besides those above; SkyReels-V2's manifests carry the model's
# name.
OWN: dict[str, dict[str, str]] = {
    "SkyReels-V3-R2V-14B": {"transformer": "skyreels_v3/r2v_transformer_14b.json"},
    "SkyReels-V3-V2V-14B": {"transformer": EXTENSION, "shot_transformer": EXTENSION},
    "SkyReels-V3-A2V-19B": {
        "transformer": "talking_avatar/dit_talking_avatar_19B.json",
        "audio_encoder": "talking_avatar/chinese_wav2vec2_base.json",
    },
    "Wan2.2-T2V-A14B": dict.fromkeys(("transformer", "transformer_2"), "wan22/wan22_t2v_a14b_expert.json"),
    "Wan2.2-I2V-A14B": dict.fromkeys(("transformer", "transformer_2"), "wan22/wan22_i2v_a14b_expert.json"),
    "Wan2.2-TI2V-5B": {"transformer": "wan22/wan22_ti2v_5b.json", "vae": "wan22/wan2_2_vae.json"},
    "HunyuanVideo-I2V": {"hunyuan_transformer": "hunyuan/dit_i2v_token_replace.json"},
    "HunyuanVideo-I2V-33ch": {"hunyuan_transformer": "hunyuan/dit_i2v_latent_concat.json"},
}
Options = dict[str, Any]
Maker = Callable[[tuple[int, ...], torch.dtype], Tensor]
V2, WAN = "Skywork/SkyReels-V2", "Wan-AI/Wan2.2"
# A row for every family and network: what it is called in tables, its task, and options besides the defaults.
FAMILIES: tuple[tuple[str, str, Options], ...] = (
    ("reference_to_video 720P, 121 frames", "reference_to_video", {}),
    ("single_shot_extension 720P, 5 s", "single_shot_extension", {}),
    ("shot_switching_extension 720P, 5 s", "shot_switching_extension", {}),
    ("talking_avatar 720P", "talking_avatar", {}),
    ("text_to_video 14B 540P, 97 frames", "text_to_video", {}),
    (
        "text_to_video 14B 720P, 121 frames",
        "text_to_video",
        {"model_id": f"{V2}-T2V-14B-720P", "num_frames": 121},
    ),
    ("image_to_video 14B 540P, 97 frames", "image_to_video", {}),
    ("image_to_video 1.3B 540P, 97 frames", "image_to_video", {"model_id": f"{V2}-I2V-1.3B-540P"}),
    ("diffusion_forcing 1.3B 540P, 97 frames", "diffusion_forcing", {}),
    ("diffusion_forcing 14B 540P, 97 frames", "diffusion_forcing", {"model_id": f"{V2}-DF-14B-540P"}),
    ("Wan2.2 T2V-A14B 720P, 81 frames", "text_to_video", {"model_id": f"{WAN}-T2V-A14B"}),
    ("Wan2.2 I2V-A14B 720P, 81 frames", "image_to_video", {"model_id": f"{WAN}-I2V-A14B"}),
    ("Wan2.2 5B 704x1280, 121 frames", "text_to_video", {"model_id": f"{WAN}-TI2V-5B"}),
    ("HunyuanVideo-I2V 720P, 129 frames", "hunyuan_image_to_video", {}),
)
# In what the files hold their numbers: the first pattern that a manifest's name matches.
STORED = (
    (r"_v2/SkyReels|wan22_|vae|clip-xlm|wav2vec2", torch.float32),
    (r"llava|2_clip", torch.float16),
    (r"", torch.bfloat16),
)


def manifests_of(task: TaskSpec, checkpoint: Checkpoint) -> dict[str, str]:
    """Return the manifest of every component of a published model.

    Raises:
        KeyError: there is none of this name.
    """
    model = task.model(checkpoint.name)
    name = (model.names[0] if model else checkpoint.name).partition("/")[2]
    own = {"transformer": f"skyreels_v2/{name}.json"} if name.startswith("SkyReels-V2") else OWN[name]
    return {**WAN_PARTS, **HUNYUAN, **own}


def plan_of(make: Maker, component: str, manifest: str) -> ComponentPlan:
    """Return a component whose weights are made by ``make``, as ``plan_component`` does from files."""
    dtype = next(dtype for pattern, dtype in STORED if re.search(pattern, manifest))
    published = [
        Entry(name, tuple(shape), partial(make, tuple(shape), dtype))
        for name, shape in MANIFESTS[manifest]["tensors"].items()
    ]
    found = rename(Path(manifest), published, COMPONENTS[component].tables)
    config = CONFIGS.get(component) or MANIFESTS[manifest].get("config") or {}
    if component == "llava":  # a small tokenizer has other numbers for its special tokens
        image, pad = template_tokenizer().convert_tokens_to_ids(["<image>", "<pad>"])
        config = {**config, "image_token_index": image, "image_token_id": image, "pad_token_id": pad}
        config["text_config"] = {**config["text_config"], "pad_token_id": pad}
    return ComponentPlan(
        name=component, module=build_meta_module(component, Path(manifest), found, config), found=found
    )


def without_numbers(make: Maker, plan: ComponentPlan) -> ComponentPlan:
    """Return a component of a file whose tensors are made by ``make``, stored as they are in the file."""

    def unread(entry: Entry) -> Entry:
        def read() -> Tensor:
            stored = entry.read()
            return make(tuple(stored.shape), stored.dtype)

        return replace(entry, read=read, scale=entry.scale and unread(entry.scale))

    return replace(plan, found={name: unread(entry) for name, entry in plan.found.items()})


def weightless(task: TaskSpec) -> dict[str, Any]:
    """Return the tokenizers and image processors of a task's tiny model."""
    if "llava" not in task.components.values():
        return {"tokenizer": tiny.byte_tokenizer()}
    from transformers import CLIPImageProcessorPil

    side = CONFIGS["llava"]["vision_config"]["image_size"]
    return {
        "tokenizer": template_tokenizer(),
        "tokenizer_2": tiny.byte_tokenizer(),
        "image_processor": CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=side),
    }


def replace_files(
    patches: Patches, make: Maker, finish: Callable[[Any], None] = lambda _pipeline: None
) -> None:
    """Let ``run`` load the published models from the manifests instead of from files.

    Args:
        make: (shape, dtype) -> a tensor in place of one that would be read.
        finish: is handed every pipeline that was loaded.
    """
    original, planned = load.load_pipeline, load.plan_component

    def load_pipeline(spec: TaskSpec, checkpoint: Checkpoint, dtype: torch.dtype, *more: Any) -> Any:
        manifests, others = manifests_of(spec, checkpoint), weightless(spec)

        def plan_component(name: str, place: Path, arch: Mapping[str, Any] | None = None) -> ComponentPlan:
            if name in others:
                return ComponentPlan(name=name, module=others[name], found={})
            if place.is_file():  # in place of a component, with holes where its numbers would be
                return without_numbers(make, planned(name, place, arch))
            return plan_of(make, name, manifests[name])

        with Patches() as inside:
            inside.set(load, "plan_component", plan_component)
            pipeline = original(spec, replace(checkpoint, folder=Path()), dtype, *more)
        pipeline.checkpoint = checkpoint
        finish(pipeline)
        return pipeline

    patches.set(load, "load_pipeline", load_pipeline)
    patches.set(session, "fetch", lambda checkpoint, *_: checkpoint)  # nothing is downloaded
    patches.set(model_features, "fingerprint", lambda *_: "simulated")


def fake_buffers(sim: Sim, pipeline: Any) -> None:
    """Let buffers that were computed when a module was built be fakes like its weights."""
    for part in pipeline.components.values():
        for module in part.modules() if isinstance(part, torch.nn.Module) else ():
            for name, buffer in module._buffers.items():
                if type(buffer) is Tensor:
                    module._buffers[name] = sim.with_numbers(buffer, buffer.device)
