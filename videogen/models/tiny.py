"""Built-in tiny models: published architectures at laptop size with random weights, cached on disk.

They go through the same files, loaders and pipelines as the real checkpoints; only the numbers in
``configs/tiny/*.yaml`` are small.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, HunyuanVideoTransformer3DModel
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaModel,
    PreTrainedTokenizerFast,
    UMT5Config,
    UMT5EncoderModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
)
from transformers.utils.logging import disable_progress_bar

from videogen.files import temporary_sibling
from videogen.models.hunyuan.text import TEMPLATE
from videogen.models.hunyuan.transformer import make_vae
from videogen.models.wan.transformer import WanDiT
from videogen.models.wan.vae import WAN22_LATENTS_MEAN, WAN22_LATENTS_STD
from videogen.tasks import config

UNMASKED = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}  # masks are for training
SPECIAL = ("<pad>", "</s>", "<unk>")
HEADERS, IMAGE = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), "<image>"
LLAMA3_WORDS = (  # the regular expression of Llama 3's tokenizer
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def build(name: str, folder: Path) -> Path:
    """Build the tiny model of ``configs/tiny/<name>.yaml`` in ``folder`` (diffusers layout).

    Several processes may do this at once: the first rename wins, and the files are equal. Returns the folder.
    """
    sizes = config.read(f"tiny/{name}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with temporary_sibling(folder, folder=True) as temporary:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(sizes["seed"])
            _save(sizes, temporary)
        try:
            temporary.rename(folder)
        except OSError:
            if not (folder / "model_index.json").is_file():
                raise
    return folder


def _save(sizes: dict[str, Any], folder: Path) -> None:
    disable_progress_bar()  # the library's progress bars
    modules, beside, pipeline = _hunyuan(sizes) if sizes.get("kind") == "hunyuan" else _wan(sizes)
    for module in modules.values():
        _randomize(module)
    components = {**modules, **beside}
    for name, component in components.items():
        component.save_pretrained(folder / name)
    classes = {
        name: [type(c).__module__.partition(".")[0], type(c).__name__] for name, c in components.items()
    }
    index = json.dumps({"_class_name": pipeline, **classes}, indent=2)
    (folder / "model_index.json").write_text(index + "\n", encoding="utf-8")


Parts = tuple[dict[str, Any], dict[str, Any], str]
"""Networks, what goes with them, and the name of diffusers' pipeline."""


def _wan(sizes: dict[str, Any]) -> Parts:
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
    return modules, {"tokenizer": tokenizer}, "WanPipeline"


def _hunyuan(sizes: dict[str, Any]) -> Parts:
    words, letters = template_tokenizer(), byte_tokenizer()
    image, pad = words.convert_tokens_to_ids([IMAGE, "<pad>"])
    llava = LlavaConfig(
        text_config=LlamaConfig(vocab_size=len(words), pad_token_id=pad, **sizes["llava"]["text"]),
        vision_config=CLIPVisionConfig(**sizes["llava"]["vision"]),
        image_token_id=image,
        pad_token_id=pad,
    )
    ends = {"vocab_size": len(letters), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}
    side = sizes["llava"]["vision"]["image_size"]
    modules = {
        "transformer": HunyuanVideoTransformer3DModel(**sizes["transformer"]),
        "vae": make_vae(sizes["vae"]),
        "text_encoder": LlavaModel(llava),
        "text_encoder_2": CLIPTextModel(CLIPTextConfig(**sizes["clip_text"], **ends)),
    }
    beside = {
        "tokenizer": words,
        "tokenizer_2": letters,
        "image_processor": CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=side),
    }
    return modules, beside, "HunyuanVideoImageToVideoPipeline"


def _statistics(vae: dict[str, Any]) -> dict[str, Any]:
    """Return Wan2.2's latent statistics, which are no defaults of the class."""
    if vae.get("z_dim") != len(WAN22_LATENTS_MEAN):
        return {}
    return {"latents_mean": WAN22_LATENTS_MEAN, "latents_std": WAN22_LATENTS_STD}


def _randomize(module: nn.Module) -> None:
    """Initialize weights that keep signals at unit scale, so that every input visibly matters."""
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1 and "table" not in name and "gamma" not in name:
            fan_in = parameter[0].numel()
            nn.init.normal_(parameter, std=fan_in**-0.5)
        elif name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of single bytes; ids of the special tokens are as in UMT5."""
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


def template_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with whole words for HunyuanVideo's template and bytes for everything else.

    So the template has the length that its published offsets assume.
    """
    split = pre_tokenizers.Split(Regex(LLAMA3_WORDS), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    before = pre_tokenizers.Sequence([split, as_bytes])
    headers = ("<|begin_of_text|>", "<|end_of_text|>", *HEADERS, IMAGE, "<pad>")
    plain = [text for text in re.split("|".join(map(re.escape, headers)), TEMPLATE["template"]) if text]
    words = sorted({word for text in plain for word, _ in before.pre_tokenize_str(text.replace("{}", ""))})
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate(dict.fromkeys((*headers, *alphabet, *words)))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = before
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(headers))
    begin = headers[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, vocab[begin])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=begin, pad_token="<pad>", padding_side="right"
    )
