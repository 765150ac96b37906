"""Asynchronous copies of results to RAM while the device computes the next ones."""

from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

AHEAD = 1  # copies in flight before the next one starts


class HostCopies:
    """Queue that copies results to RAM through pinned memory and processes them there, in order."""

    def __init__(self, device: torch.device) -> None:
        self.streams = device.type == "cuda"
        self.waiting: deque[Callable[[], None]] = deque()
        self.free: dict[tuple, list[Tensor]] = defaultdict(list)  # pinned memory, by shape and dtype

    def start(self, result: Tensor, use: Callable[[Tensor], object]) -> None:
        """Call ``use`` with a copy of ``result`` in RAM, now or later; the copy is lent only."""
        if not self.streams:
            use(result.cpu())
            return
        free = self.free[result.shape, result.dtype]
        copy = free.pop() if free else torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
        copy.copy_(result, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self.waiting.append(partial(self._use, copy, arrived, use))
        if len(self.waiting) > AHEAD:
            self.waiting.popleft()()

    def finish(self) -> None:
        """Wait for all copies and process them."""
        while self.waiting:
            self.waiting.popleft()()

    def _use(self, copy: Tensor, arrived: torch.cuda.Event, use: Callable[[Tensor], object]) -> None:
        arrived.synchronize()
        use(copy)
        self.free[copy.shape, copy.dtype].append(copy)
