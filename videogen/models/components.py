"""Components from files: checked against their modules first, loaded later.

A config comes from the component's config.json where there is one; what it does not say is read off the
tensor shapes, so tiny and unusual sizes load like the published ones.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

import torch
from diffusers import ModelMixin
from torch import nn
from transformers import AutoTokenizer, CLIPImageProcessorPil, PreTrainedTokenizerBase

from videogen.checkpoints.json_files import read_json
from videogen.checkpoints.key_maps import Entry, rename
from videogen.checkpoints.layouts import WEIGHTLESS
from videogen.checkpoints.stored_tensors import with_scales
from videogen.errors import CheckpointError, first_line, reported_as
from videogen.models import weight_loader
from videogen.models.component import Component, Shapes
from videogen.models.quantized_linear import use_scale
from videogen.models.wan.transformer import WanDiT
from videogen.tasks.config import Config
from videogen.tasks.table import NETWORKS, TAKEN_OVER

COMPONENTS: dict[str, Component] = {
    name: component
    for network in NETWORKS
    for name, component in import_module(f"videogen.models.{network}.components").COMPONENTS.items()
}
"""The components of all networks, by the names that the rows of the task table have for them."""
IN_MEMORY = Path("state dict")
LoadedComponent: TypeAlias = nn.Module | PreTrainedTokenizerBase | CLIPImageProcessorPil
"""What a pipeline is made of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComponentPlan:
    """Checked component whose weights are not read yet; ``module`` is on the meta device."""

    name: str
    module: LoadedComponent
    found: Mapping[str, Entry]
    scales: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def num_elements(self) -> int:
        """Number of elements of all its tensors."""
        return sum(math.prod(entry.shape) for entry in self.found.values())

    def load_weights(
        self,
        dtype: torch.dtype,
        device: torch.device | None = None,
        on_read: Callable[[int], None] = lambda _: None,
    ) -> LoadedComponent:
        """Load the weights to a device (None: the CPU) and return the module; float32 parts stay float32.

        ``on_read`` is called with the number of elements of every tensor.
        """
        if not isinstance(self.module, nn.Module):
            return self.module
        component = COMPONENTS[self.name]
        dtype = component.instead.get(dtype, dtype)

        def dtype_of(key: str) -> torch.dtype:
            return torch.float32 if re.search(component.float32, key) else dtype

        def keeps_quantized(name: str) -> bool:
            return component.keeps_quantized and not re.search(component.float32, name)

        module = weight_loader.load_weights(
            self.module, self.found, dtype_of, device, keeps_quantized, on_read
        )
        for name, scale in self.scales.items():
            use_scale(module.get_submodule(name), scale)
        return module


def plan_component(name: str, place: Path, arch: Config | None = None) -> ComponentPlan:
    """Check names and shapes of a component's tensors against the module that they are for.

    Args:
        name: component, a key of ``COMPONENTS``, or 'tokenizer'.
        place: its folder or weight file.
        arch: what neither config nor shapes tell (the checkpoint's tiny_arch.json entry).

    Raises:
        CheckpointError: unreadable files, or tensors that do not fit.
    """
    if name in WEIGHTLESS:
        return ComponentPlan(name=name, module=_load_weightless(name, place), found={})
    found = weight_loader.read_entries(place, COMPONENTS[name].tables)
    scales = weight_loader.read_scales(place, COMPONENTS[name].tables[0], found)
    config = read_json(place / "config.json") if (place / "config.json").is_file() else {}
    return ComponentPlan(
        name=name,
        module=build_meta_module(name, place, found, config | (arch if isinstance(arch, dict) else {})),
        found=found,
        scales=scales,
    )


def load_component(
    name: str,
    place: Path,
    dtype: torch.dtype = torch.float32,
    arch: Config | None = None,
    device: torch.device | None = None,
) -> LoadedComponent:
    """Check and load one component of a checkpoint (see ``plan_component``)."""
    return plan_component(name, place, arch).load_weights(dtype, device)


def plan_tensors(
    name: str, tensors: Mapping[str, object], config: Config, place: Path = IN_MEMORY
) -> ComponentPlan:
    """Check a state dict against the component that it is for, as ``plan_component`` does with files.

    Args:
        name: component, a key of ``COMPONENTS``.
        tensors: state dict, under the published names or diffusers'.
        config: what is known of the component's config.
        place: what errors call the state dict.
    """
    entries = with_scales(weight_loader.tensor_entries(tensors))
    found = rename(place, entries, COMPONENTS[name].tables)
    return ComponentPlan(name=name, module=build_meta_module(name, place, found, config), found=found)


def take_over(module: ModelMixin) -> nn.Module:
    """Return our network with the very tensors of a diffusers one that has the same; others as they are.

    Raises:
        CheckpointError: tensors that do not fit, or hooks, which would be lost.
    """
    kind = type(module)
    if kind.__name__ not in TAKEN_OVER or not kind.__module__.startswith("diffusers."):
        return module
    place = Path(kind.__name__)
    registries = (getattr(each, "_diffusers_hook", None) for each in module.modules())
    if any(registry is not None and registry.hooks for registry in registries):
        raise CheckpointError(f"{place}: has hooks of diffusers (offload, casting, caches); add them later")
    plan = plan_tensors(TAKEN_OVER[kind.__name__], module.state_dict(), module.config, place)
    assert isinstance(plan.module, nn.Module)
    plan.module.load_state_dict({name: entry.read() for name, entry in plan.found.items()}, assign=True)
    return plan.module.train(module.training)


def _read_transformer(
    source: str | Path | Mapping[str, object], dtype: torch.dtype, device: torch.device | None, config: Config
) -> WanDiT:
    if isinstance(source, str | Path):
        if not Path(source).exists():
            raise CheckpointError(
                f"{source}: no such file; give one, a folder of shards, or its link on the hub"
            )
        plan = plan_component("transformer", Path(source), config)
    else:
        plan = plan_tensors("transformer", source, config)
    loaded = plan.load_weights(dtype, device)
    assert isinstance(loaded, WanDiT)
    return loaded


WanDiT.read_file = staticmethod(_read_transformer)


def build_meta_module(name: str, place: Path, found: Mapping[str, Entry], config: Config) -> nn.Module:
    """Build a component on the meta device and check it against the tensors that it will load.

    Raises:
        CheckpointError: see ``weight_loader.meta_module``; or a config that describes no such component.
    """
    component = COMPONENTS[name]
    what = f"{place}: its config does not describe a {name}"
    with reported_as(lambda why: CheckpointError(f"{what} ({why})")):
        values = component.config(config, Shapes(place, found))
        weight_loader.check_counts(values, found)
        return weight_loader.meta_module(lambda: component.make(values), place, found)


def _load_weightless(name: str, place: Path) -> LoadedComponent:
    try:
        if name == "image_processor":  # the PIL-based one, as published
            return CLIPImageProcessorPil.from_pretrained(place, local_files_only=True)
        return AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        kind = "an image processor" if name == "image_processor" else "a tokenizer"
        raise CheckpointError(f"{place}: not {kind} ({first_line(error)}); download it again") from None
