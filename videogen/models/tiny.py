"""Built-in tiny models: published architectures at laptop size with random weights, cached on disk.

They go through the same files, loaders and pipelines as the real checkpoints; only the numbers in
``configs/tiny/*.yaml`` are small.
"""

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from videogen.errors import CheckpointError, first_line
from videogen.files import temporary_sibling
from videogen.tasks import config
from videogen.tasks.config import Config
from videogen.tasks.table import NETWORKS

SPECIAL = ("<pad>", "</s>", "<unk>")


class TinyParts(NamedTuple):
    """Networks of a tiny model, what goes with them, and the name of diffusers' pipeline."""

    modules: Mapping[str, nn.Module]
    beside: Mapping[str, object]
    pipeline: str


def build(name: str, folder: Path) -> Path:
    """Build the tiny model of ``configs/tiny/<name>.yaml``, or of a user's file, in ``folder``.

    Its layout is diffusers'. Several processes may do this at once: the first rename wins, and the files are
    equal. Returns the folder.

    Raises:
        CheckpointError: the sizes in a user's file do not go together.
    """
    sizes = config.read_tiny(name)
    with temporary_sibling(folder, folder=True) as temporary:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(sizes["seed"])
            try:
                _save(sizes, temporary)
            except Exception as error:
                if not config.is_file(name):
                    raise
                what = f"no model can be made of it ({first_line(error)})"
                raise CheckpointError(f"--model_id tiny:{Path(name).name}: {what}") from error
        try:
            temporary.rename(folder)
        except OSError:
            if not (folder / "model_index.json").is_file():
                raise
    return folder


def _save(sizes: Config, folder: Path) -> None:
    disable_progress_bar()  # the library's progress bars
    network = import_module(f"videogen.models.{sizes.get('kind', NETWORKS[0])}.tiny")
    made: TinyParts = network.parts(sizes)
    for module in made.modules.values():
        randomize(module)
    save(made, folder)


def save(made: TinyParts, folder: Path) -> None:
    """Write parts as a model folder of diffusers' layout."""
    components: dict[str, Any] = {**made.modules, **made.beside}
    for name, component in components.items():
        component.save_pretrained(folder / name)
    classes = {
        name: [type(c).__module__.partition(".")[0], type(c).__name__] for name, c in components.items()
    }
    index = json.dumps({"_class_name": made.pipeline, **classes}, indent=2)
    (folder / "model_index.json").write_text(index + "\n", encoding="utf-8")


def randomize(module: nn.Module) -> None:
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
    return ended_tokenizer(tokenizer)


def ended_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Return a tokenizer that ends texts as UMT5's does; its vocabulary begins with ``SPECIAL``."""
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="right",
    )
