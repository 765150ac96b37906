"""Copies to a GPU through pinned buffers, on a stream that no kernel waits for."""

import threading
from collections.abc import Sequence
from itertools import cycle

import torch
from torch import Tensor

STAGE = 32 << 20  # bytes of a pinned buffer


class Uploader:
    """Copies of host tensors of any kind to a GPU; each calling thread has its own stream.

    Without pinned buffers every copy waits for all earlier kernels. Pinning the weights themselves would take
    their size in RAM again, rounded up to powers of two by torch.
    """

    def __init__(self, device: torch.device) -> None:
        known = device.type != "cuda" or device.index is not None
        self.device = device if known else torch.device("cuda", torch.cuda.current_device())
        self._own = threading.local()

    def __call__(self, source: Tensor) -> Tensor:
        """Return a contiguous copy on the GPU for the kernels that are launched from now on."""
        (target,) = self.allocate([source])
        done = self.send([source], [target], self.now())
        torch.cuda.current_stream(self.device).wait_event(done)
        return target

    def allocate(self, sources: Sequence[Tensor]) -> list[Tensor]:
        """Return uninitialised tensors on the GPU for copies of ``sources``."""
        return [torch.empty(s.shape, dtype=s.dtype, device=self.device) for s in sources]

    def now(self) -> torch.cuda.Event:
        """Return an event after everything that was launched, which may still read reused memory."""
        return torch.cuda.current_stream(self.device).record_event()

    def send(
        self, sources: Sequence[Tensor], targets: Sequence[Tensor], ready: torch.cuda.Event
    ) -> torch.cuda.Event:
        """Copy to ``targets`` once ``ready`` has come; returns an event for when they are complete."""
        stream, buffers = self._stage()
        stream.wait_event(ready)
        with torch.cuda.stream(stream):
            staged(sources, targets, buffers)
        return stream.record_event()

    def _stage(self) -> tuple[torch.cuda.Stream, list[tuple[Tensor, torch.cuda.Event]]]:
        if not hasattr(self._own, "stage"):
            torch.cuda.set_device(self.device)  # a new thread starts on GPU 0
            buffers = [torch.empty(STAGE, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
            self._own.stage = (
                torch.cuda.Stream(self.device),
                [(buffer, torch.cuda.Event(blocking=True)) for buffer in buffers],  # waiting threads sleep
            )
        return self._own.stage


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a small tensor from the CPU to a device without waiting for the kernels launched there."""
    return tensor.to(device, non_blocking=device.type == "cuda")


def staged(
    sources: Sequence[Tensor], targets: Sequence[Tensor], buffers: Sequence[tuple[Tensor, torch.cuda.Event]]
) -> None:
    """Copy piece by piece through buffers in turn; an event each says when a buffer's last piece is gone."""
    turns = cycle(buffers)
    size = len(buffers[0][0])
    for source, target in zip(sources, targets, strict=True):
        for piece, place in zip(_bytes(source).split(size), _bytes(target).split(size), strict=True):
            buffer, event = next(turns)
            event.synchronize()
            part = buffer[: len(piece)]
            part.copy_(piece)
            place.copy_(part, non_blocking=True)
            event.record()


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)
