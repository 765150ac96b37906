"""The built-in random-weight models: published architectures at laptop size, made once and kept on disk.

They go through the same files, loaders and pipelines as the real checkpoints; only the numbers in
``configs/tiny/*.yaml`` are small.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
    UMT5Config,
    UMT5EncoderModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
)
from transformers.utils.logging import disable_progress_bar

from videogen import config
from videogen.media.video import remove
from videogen.models.vae import WAN22_LATENTS_MEAN, WAN22_LATENTS_STD
from videogen.models.wan import WanDiT

UNMASKED = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}  # masks are for training
SPECIAL = ("<pad>", "</s>", "<unk>")


def build(name: str, folder: Path) -> Path:
    """Make the tiny model of ``configs/tiny/<name>.yaml`` in ``folder`` (diffusers layout); returns the
    folder.

    Another process may be doing the same: whoever renames first wins, the files are equal.
    """
    sizes = config.read(f"tiny/{name}")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(sizes["seed"])
            _save(sizes, temporary)
        try:
            temporary.rename(folder)
        except OSError:
            if not (folder / "model_index.json").is_file():
                raise
    finally:
        remove(temporary)
    return folder


def _save(sizes: dict[str, Any], folder: Path) -> None:
    disable_progress_bar()  # of the library's, for a few kilobytes
    tokenizer = byte_tokenizer()
    text = UMT5Config(vocab_size=len(tokenizer), feed_forward_proj="gated-gelu", **sizes["text_encoder"])
    modules: dict[str, Any] = {
        "transformer": WanDiT(**sizes["transformer"]),
        "vae": AutoencoderKLWan(**sizes["vae"], **_statistics(sizes["vae"])),
        "text_encoder": UMT5EncoderModel(text),
    }
    if sizes.get("experts") == 2:
        modules["transformer_2"] = WanDiT(**sizes["transformer"])
    if "image_encoder" in sizes:
        modules["image_encoder"] = CLIPVisionModel(CLIPVisionConfig(**sizes["image_encoder"]))
    if "audio_encoder" in sizes:
        modules["audio_encoder"] = Wav2Vec2Model(Wav2Vec2Config(**sizes["audio_encoder"], **UNMASKED))
    for module in modules.values():
        _randomize(module)
    components = {**modules, "tokenizer": tokenizer}
    for name, component in components.items():
        component.save_pretrained(folder / name)
    classes = {
        name: [type(c).__module__.partition(".")[0], type(c).__name__] for name, c in components.items()
    }
    index = json.dumps({"_class_name": "WanPipeline", **classes}, indent=2)
    (folder / "model_index.json").write_text(index + "\n", encoding="utf-8")


def _statistics(vae: dict[str, Any]) -> dict[str, Any]:
    """Of Wan2.2's latents, which are no defaults of the class."""
    if vae.get("z_dim") != len(WAN22_LATENTS_MEAN):
        return {}
    return {"latents_mean": WAN22_LATENTS_MEAN, "latents_std": WAN22_LATENTS_STD}


def _randomize(module: nn.Module) -> None:
    """Weights that keep signals at unit scale, so that a prompt, a reference and a step visibly matter."""
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1 and "table" not in name and "gamma" not in name:
            fan_in = parameter[0].numel()
            nn.init.normal_(parameter, std=fan_in**-0.5)
        elif name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that knows every byte and nothing else; ids of the special tokens as in UMT5."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate((*SPECIAL, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="right",
    )
