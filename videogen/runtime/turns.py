"""Components that take turns on a device: some stay there, the others come to work and leave again.

Weights are never modified, so leaving is letting go of the copy on the device: parameters point at the
tensors in RAM again, which are the mapped files where the dtype fits. Nothing is ever copied back. Arrivals
go through pinned memory on a stream of their own, and where there is room the next component comes while an
encoder works. Pipelines encode known frames before they ask encoders: at 720P that takes 13 GB, and no
weights that came early may be in its way.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from accelerate.utils import send_to_device
from torch import Tensor, nn

from videogen.models.upload import Uploader
from videogen.runtime.device import free_memory, total_memory
from videogen.runtime.precision import inner_tensors

if TYPE_CHECKING:
    from videogen.pipelines.base import VideoPipeline

# In the names of components that work briefly, and need little room besides their weights.
ENCODER = "_encoder"
# Bytes left to an encoder at work when the next component comes early; by simulation it takes 0.5 GB at most.
HEADROOM = 2 << 30
SHARE_LEFT = 1 / 20  # of the device's memory, besides: coming early is no reason to run short


class Copier:
    """Copies tensors to a device in the background; at once where the device has no streams."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.upload = device, Uploader(device)
        self.pool = ThreadPoolExecutor(1, "weights") if device.type == "cuda" else None

    def start(self, sources: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
        """Begin to copy; the returned function waits for the copies (contiguous) and gives them."""
        targets = self.upload.allocate(sources)
        if self.pool is None:
            for source, target in zip(sources, targets, strict=True):
                target.copy_(source)
            return lambda: targets
        copying = self.pool.submit(self.upload.send, sources, targets, self.upload.now())

        def arrived() -> list[Tensor]:
            torch.cuda.current_stream(self.device).wait_event(copying.result())
            return targets

        return arrived


class Visit:
    """A component on its way to the device, or there."""

    def __init__(self, module: nn.Module, copier: Copier) -> None:
        self.homes = [
            (tensor, name, getattr(tensor, name))
            for tensor in tensors_of(module)
            for name in inner_tensors(tensor)
        ]
        self.arrived = copier.start([home for *_, home in self.homes])
        self.settled = False

    def settle(self) -> None:
        """Wait until it is there, and let it compute there."""
        if not self.settled:
            for (tensor, name, _), copy in zip(self.homes, self.arrived(), strict=True):
                setattr(tensor, name, copy)
        self.settled = True

    def end(self) -> None:
        """Back to RAM, the copies forgotten."""
        self.arrived()
        for tensor, name, home in self.homes:
            setattr(tensor, name, home)


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """Yield parameters and buffers, each once."""
    yield from module.parameters()
    yield from module.buffers()


class Turns:
    """Who of a pipeline is on the device.

    Args:
        order: names of the components in order of use.
        visitors: those of them that come and go, one at a time; all others stay.
    """

    def __init__(
        self, pipeline: "VideoPipeline", device: torch.device, order: Sequence[str], visitors: Sequence[str]
    ) -> None:
        self.device, self.copier = device, Copier(device)
        modules = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
        self.visitors = {name: modules[name] for name in order if name in visitors}
        self.residents = {name: part for name, part in modules.items() if name not in self.visitors}
        self.visits: dict[str, Visit] = {}
        self.stay()
        for name, module in modules.items():
            add_hook_to_module(module, _Turn(self, name))

    def stay(self, device: torch.device | None = None) -> None:
        """Bring those that stay to their device, or to another."""
        for module in self.residents.values():
            module.to(device or self.device)

    def take(self, name: str) -> bool:
        """One component is about to work: the others leave. Returns whether it has just come.

        Who came early may wait for its turn while an encoder works; a transformer and the VAE need the room.
        """
        visit = self.visits.get(name)
        came = name in self.visitors and (visit is None or not visit.settled)
        crowded = ENCODER not in name or (visit is None and came and not self._fits(name))
        for other in [other for other in self.visits if other != name]:
            if crowded or self.visits[other].settled:
                self.visits.pop(other).end()
        if came:
            self._come(name).settle()
        if came and ENCODER in name:
            names = list(self.visitors)
            for follower in names[names.index(name) + 1 :][:1]:
                if self._fits(follower):
                    self._come(follower)
        return came

    def _come(self, name: str) -> Visit:
        if name not in self.visits:
            self.visits[name] = Visit(self.visitors[name], self.copier)
        return self.visits[name]

    def _fits(self, name: str) -> bool:
        size = sum(tensor.nbytes for tensor in tensors_of(self.visitors[name]))
        left = HEADROOM + SHARE_LEFT * total_memory(self.device)
        return size + left < free_memory(self.device)

    def rest(self) -> None:
        """All visitors leave."""
        while self.visits:
            self.visits.popitem()[1].end()


class _Turn(ModelHook):
    """Says whose turn it is. diffusers reads off it where a pipeline computes."""

    def __init__(self, turns: Turns, name: str) -> None:
        self.turns, self.name, self.execution_device = turns, name, turns.device

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple, dict]:  # noqa: ARG002
        came = self.turns.take(self.name)
        if came and ENCODER in self.name:  # what it is given may have been made where its weights were
            device = self.execution_device
            return send_to_device(args, device), send_to_device(kwargs, device)
        return args, kwargs
