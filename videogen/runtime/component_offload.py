"""Component offload: encoders, transformers and the VAE are on the device only while they run.

Weights are never modified, so eviction drops the copy on the device and points the parameters at the tensors
in RAM again (the mapped files if the dtype fits); nothing is copied back. Uploads go through pinned memory on
their own stream. If there is room, the next component is uploaded while an encoder runs. Pipelines encode
known frames before they run encoders, because that takes 13 GB at 720P and weights uploaded early would be in
the way.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from accelerate.utils import send_to_device
from torch import Tensor, nn

from videogen.models.device_copies import Uploader
from videogen.models.interface import Pipeline
from videogen.runtime.device import free_memory, total_memory
from videogen.runtime.precision import inner_tensors

# Bytes left to an encoder when the next component is uploaded early; by simulation it takes 0.5 GB at most.
HEADROOM = 2 << 30
SHARE_LEFT = 1 / 20  # fraction of the device's memory that stays free as well


class Copier:
    """Copies of tensors to a device, made in the background if the device has streams."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.uploader = device, Uploader(device)
        self.pool = ThreadPoolExecutor(1, "weights") if device.type == "cuda" else None

    def start(self, sources: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
        """Start to copy; the returned function waits for the copies (contiguous) and returns them."""
        targets = self.uploader.allocate(sources)
        if self.pool is None:
            for source, target in zip(sources, targets, strict=True):
                target.copy_(source)
            return lambda: targets
        copying = self.pool.submit(self.uploader.send, sources, targets, self.uploader.now())

        def arrived() -> list[Tensor]:
            torch.cuda.current_stream(self.device).wait_event(copying.result())
            return targets

        return arrived


class Upload:
    """Upload of one component's weights to the device, in progress or finished."""

    def __init__(self, module: nn.Module, copier: Copier) -> None:
        self.homes = [
            (tensor, name, getattr(tensor, name))
            for tensor in tensors_of(module)
            for name in inner_tensors(tensor)
        ]
        self.arrived = copier.start([home for *_, home in self.homes])
        self.ready = False

    def wait(self) -> None:
        """Wait for the copies and point the component's parameters at them."""
        if not self.ready:
            for (tensor, name, _), copy in zip(self.homes, self.arrived(), strict=True):
                setattr(tensor, name, copy)
        self.ready = True

    def evict(self) -> None:
        """Point the component at its weights in RAM again and drop the copies."""
        self.arrived()
        for tensor, name, home in self.homes:
            setattr(tensor, name, home)


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """Yield parameters and buffers, each once."""
    yield from module.parameters()
    yield from module.buffers()


class ComponentOffload:
    """Offload that keeps one component of a pipeline on the device at a time, plus the resident ones.

    Args:
        pipeline: pipeline whose components are offloaded.
        device: device that they run on.
        transient: components that are uploaded to run and evicted again, in order of use; all others are
            resident.
    """

    def __init__(self, pipeline: Pipeline, device: torch.device, transient: Sequence[str]) -> None:
        self.device, self.copier = device, Copier(device)
        self.encoders = pipeline.encoder_names()  # run briefly, and need little memory besides their weights
        modules = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
        self.transient = {name: modules[name] for name in transient}
        self.residents = {name: part for name, part in modules.items() if name not in self.transient}
        self.uploads: dict[str, Upload] = {}
        self.place_residents()
        for name, module in modules.items():
            add_hook_to_module(module, _MakeResident(self, name))

    def place_residents(self, device: torch.device | None = None) -> None:
        """Move the resident components to the device, or to another."""
        for module in self.residents.values():
            module.to(device or self.device)

    def make_resident(self, name: str) -> bool:
        """Make ``name`` resident and evict the others; True if it was just uploaded.

        An encoder leaves components that were uploaded early on the device; transformers and the VAE need the
        room.
        """
        upload = self.uploads.get(name)
        uploaded = name in self.transient and (upload is None or not upload.ready)
        encodes = name in self.encoders
        crowded = not encodes or (upload is None and uploaded and not self._fits(name))
        for other in [other for other in self.uploads if other != name]:
            if crowded or self.uploads[other].ready:
                self.uploads.pop(other).evict()
        if uploaded:
            self._upload(name).wait()
        if uploaded and encodes:
            names = list(self.transient)
            for follower in names[names.index(name) + 1 :][:1]:
                if self._fits(follower):
                    self._upload(follower)
        return uploaded

    def _upload(self, name: str) -> Upload:
        if name not in self.uploads:
            self.uploads[name] = Upload(self.transient[name], self.copier)
        return self.uploads[name]

    def _fits(self, name: str) -> bool:
        size = sum(tensor.nbytes for tensor in tensors_of(self.transient[name]))
        left = HEADROOM + SHARE_LEFT * total_memory(self.device)
        return size + left < free_memory(self.device)

    def evict_all(self) -> None:
        """Evict every transient component."""
        while self.uploads:
            self.uploads.popitem()[1].evict()


class _MakeResident(ModelHook):
    """Hook that makes a component resident before its forward.

    diffusers also reads from it on which device a pipeline computes.
    """

    def __init__(self, offload: ComponentOffload, name: str) -> None:
        self.offload, self.name, self.execution_device = offload, name, offload.device

    def pre_forward(self, _module: nn.Module, *args: object, **kwargs: object) -> tuple[tuple, dict]:
        uploaded = self.offload.make_resident(self.name)
        if (
            uploaded and self.name in self.offload.encoders
        ):  # its input may have been created on the CPU, with its weights
            device = self.execution_device
            return send_to_device(args, device), send_to_device(kwargs, device)
        return args, kwargs
