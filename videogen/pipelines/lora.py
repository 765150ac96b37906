"""LoRA on pipelines: diffusers' methods, with every kind of file and exact ways back."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import torch
from diffusers.loaders.lora_base import LoraBaseMixin
from safetensors.torch import save_file
from torch import Tensor, nn
from torch._dynamo import OptimizedModule

from videogen.checkpoints import lora_source
from videogen.files import work_folder
from videogen.models import lora_weights
from videogen.models.lora_weights import PREFIX, MergedChanges
from videogen.models.quantized_linear import pretend_dtype

logger = logging.getLogger(__name__)

HUB_TIMEOUT = 30.0  # seconds without progress
P = ParamSpec("P")
R = TypeVar("R")


def on_plain_modules(method: Callable[P, R]) -> Callable[P, R]:
    """Let a method see the transformers without the wrapper of torch.compile, which diffusers passes over."""

    @wraps(method)
    def wrapped(*given: P.args, **options: P.kwargs) -> R:
        pipeline = cast(Any, given[0])
        found = {name: getattr(pipeline, name, None) for name in pipeline._lora_loadable_modules}
        compiled = {name: module for name, module in found.items() if isinstance(module, OptimizedModule)}
        try:
            for name, module in compiled.items():
                setattr(pipeline, name, module._orig_mod)
            return method(*given, **options)
        finally:
            for name, module in compiled.items():
                setattr(pipeline, name, module)

    return wrapped


class LoraMixin(LoraBaseMixin):
    """Methods before those of diffusers' loaders; what PEFT has no layer for is merged into the weights.

    ``unfuse_lora`` and ``unload_lora_weights`` give back the very bits that the weights had.
    """

    @on_plain_modules
    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: Any,
        adapter_name: str | None = None,
        *,
        quiet: bool = False,
        **options: Any,
    ) -> None:
        """Load LoRA weights like diffusers, from files of any kind and naming (see checkpoints/lora.py).

        Args:
            pretrained_model_name_or_path_or_dict: file, folder, hub id or tensors.
            adapter_name: name of the adapter.
            quiet: do not warn about what of a file is not used.
            options: further arguments of diffusers' method.

        Raises:
            CheckpointError: a file that holds no LoRA for this model.
        """
        given = pretrained_model_name_or_path_or_dict
        if isinstance(given, Mapping):
            with work_folder() as folder:
                file = folder / "lora.safetensors"
                save_file({name: tensor.contiguous().clone() for name, tensor in given.items()}, file)
                return self.load_lora_weights(file, adapter_name, quiet=quiet, **options)
        place = "/".join(filter(None, (options.get("subfolder"), options.get("weight_name"))))
        file = Path(given, place)
        if not file.exists() and place and not (options.get("revision") or options.get("token")):
            file = lora_source.fetch(f"{given}:{place}", HUB_TIMEOUT)
        if not file.exists():  # a repository whose file diffusers looks for
            return super().load_lora_weights(given, adapter_name=adapter_name, **options)
        name = "transformer_2" if options.get("load_into_transformer_2") else "transformer"
        transformer = getattr(self, name)
        with pretend_dtype(transformer):
            weights = lora_weights.read(file, transformer)
            if weights.warning and not quiet:
                logger.warning(weights.warning)
            adapter_name = adapter_name or _free_name(transformer)
            pairs = weights.pairs or _empty_pair(transformer)
            super().load_lora_weights(pairs, adapter_name=adapter_name, **options)
        self._merged_changes(name).add(adapter_name, weights.changes)
        return None

    @on_plain_modules
    def set_adapters(
        self, adapter_names: list[str] | str, adapter_weights: float | dict | list | None = None
    ) -> None:
        """Activate adapters with their strengths, as in diffusers."""
        super().set_adapters(adapter_names, adapter_weights)
        names = [adapter_names] if isinstance(adapter_names, str) else adapter_names
        scales = adapter_weights if isinstance(adapter_weights, list) else [adapter_weights] * len(names)
        for part, merged in self._all_merged():
            merged.set_scales({name: _scale(scale, part) for name, scale in zip(names, scales, strict=True)})

    @on_plain_modules
    def enable_lora(self) -> None:
        """Use the adapters again."""
        super().enable_lora()
        for _, merged in self._all_merged():
            merged.set_enabled(enabled=True)

    @on_plain_modules
    def disable_lora(self) -> None:
        """Run without the adapters."""
        super().disable_lora()
        for _, merged in self._all_merged():
            merged.set_enabled(enabled=False)

    @on_plain_modules
    def delete_adapters(self, adapter_names: list[str] | str) -> None:
        """Remove adapters."""
        for _, merged in self._all_merged():
            for name in [adapter_names] if isinstance(adapter_names, str) else adapter_names:
                merged.remove(name)
        super().delete_adapters(adapter_names)

    @on_plain_modules
    def fuse_lora(self, components: Sequence[str] = ("transformer",), **options: Any) -> None:
        """Add the active adapters to the weights; the values before are kept on the CPU."""
        self._fused = {
            (part, name): weight.detach().cpu().clone()
            for part in components
            for name, weight in _adapted_weights(getattr(self, part, None))
        } | getattr(self, "_fused", {})
        super().fuse_lora(components=list(components), **options)

    @on_plain_modules
    def unfuse_lora(self, components: Sequence[str] = ("transformer",), **options: Any) -> None:
        """Undo ``fuse_lora``, to the bit."""
        super().unfuse_lora(components=list(components), **options)
        fused: dict[tuple[str, str], Tensor] = getattr(self, "_fused", {})
        with torch.no_grad():
            for part in components:
                for name, weight in _adapted_weights(getattr(self, part, None)):
                    if (part, name) in fused:
                        weight.copy_(fused.pop((part, name)))

    @on_plain_modules
    def unload_lora_weights(self) -> None:
        """Remove all adapters, fused ones too; the weights are what they were, to the bit."""
        if fused := sorted({part for part, _ in getattr(self, "_fused", {})}):
            self.unfuse_lora(components=fused)
        for _, merged in self._all_merged():
            for name in list(merged.changes):
                merged.remove(name)
        super().unload_lora_weights()

    @on_plain_modules
    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Save the pipeline so that it can be loaded again; a LoRA is saved only if it is fused.

        What is said of one that is not: ``save_lora_weights`` saves it by itself.
        """
        pipeline = cast(Any, self)
        adapted = {
            name: getattr(pipeline, name)
            for name in self._lora_loadable_modules
            if getattr(getattr(pipeline, name, None), "peft_config", None)
        }
        if adapted and not getattr(self, "_fused", {}):
            logger.warning(
                "save_pretrained leaves out the LoRA %s; fuse_lora() first saves it in the weights, and "
                "save_lora_weights() by itself",
                ", ".join(sorted({adapter for model in adapted.values() for adapter in model.peft_config})),
            )
        enabled = {part: merged.enabled for part, merged in self._all_merged()}
        for _, merged in self._all_merged():
            merged.set_enabled(enabled=merged.enabled and bool(getattr(self, "_fused", {})))
        try:
            for name, model in adapted.items():
                setattr(pipeline, name, _without_adapters(model))
            cast(Any, super()).save_pretrained(save_directory, **options)
        finally:
            for name, model in adapted.items():
                setattr(pipeline, name, model)
            for part, merged in self._all_merged():
                merged.set_enabled(enabled=enabled[part])

    @on_plain_modules
    def get_list_adapters(self) -> dict[str, list[str]]:
        """Return the adapters of every transformer."""
        return super().get_list_adapters()

    @on_plain_modules
    def get_active_adapters(self) -> list[str]:
        """Return the adapters in use."""
        return super().get_active_adapters()

    def _merged_changes(self, name: str) -> MergedChanges:
        """Return the changes merged into a transformer."""
        every = self.__dict__.setdefault("_merged", {})
        return every.setdefault(name, MergedChanges(getattr(self, name)))

    def _all_merged(self) -> list[tuple[str, MergedChanges]]:
        return list(self.__dict__.get("_merged", {}).items())


def _scale(given: float | dict | None, part: str) -> float:
    """Return the strength for one transformer; weights per block are for PEFT's layers alone."""
    value = given.get(part, 1.0) if isinstance(given, dict) else given
    return float(value) if isinstance(value, int | float) else 1.0


def _free_name(transformer: nn.Module) -> str:
    """Return the name that diffusers gives to an adapter without one."""
    used = getattr(transformer, "peft_config", {})
    return f"default_{len(used)}"


def _empty_pair(transformer: nn.Module) -> dict[str, Tensor]:
    """Return a pair without effect, so that PEFT knows an adapter that has none of its own."""
    name, layer = next(
        (name, layer) for name, layer in transformer.named_modules() if type(layer) is nn.Linear
    )
    place = PREFIX + name.removesuffix(".base_layer")
    rows, columns = layer.weight.shape
    return {f"{place}.lora_A.weight": torch.zeros(1, columns), f"{place}.lora_B.weight": torch.zeros(rows, 1)}


def _adapted_weights(transformer: nn.Module | None) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of the layers that carry adapters; a pipeline may have no second transformer."""
    for name, parameter in () if transformer is None else transformer.named_parameters():
        if name.endswith(".base_layer.weight"):
            yield name, parameter


def _without_adapters(transformer: nn.Module) -> nn.Module:
    """Return a transformer with the very weights of another, without the layers of its adapters."""
    with torch.device("meta"):
        plain = cast(Any, type(transformer)).from_config(transformer.config)
    weights = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in transformer.state_dict().items()
        if ".lora_" not in name
    }
    plain.load_state_dict(weights, assign=True)
    return plain
