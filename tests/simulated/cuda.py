"""``torch.cuda`` and its neighbours, as a card that is not there answers them.

``Sim`` and ``Card`` both use it; they differ in what a stream does. Anything that is not replaced here still
fails, as on a machine without a GPU: nothing is answered by accident.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Protocol

import torch

from tests.simulated.gpus import Gpu
from tests.simulated.patches import Patches

DEVICE = torch.device("cuda:0")
OTHER_NUMBERS = 1_000_003  # added to the seed of a generator on the card
_OriginalGenerator = torch.Generator


class Host(Protocol):
    """What ``torch.cuda`` needs of a simulated card."""

    gpu: Gpu
    capacity: int
    gpus: int
    cudnn: int
    stream: "Stream"

    def allocated(self) -> int: ...

    def peak_allocated(self) -> int: ...

    def reset_peak(self) -> None: ...

    def note(self, what: str) -> None: ...

    def synchronised(self, what: str) -> None: ...


class Stream:
    """A stream of a simulated card: a queue of copies that are made when somebody waits for them.

    The default stream's queue stays empty: what it is asked happens at once.
    """

    cuda_stream = 0

    def __init__(self, host: Host, priority: int = 0) -> None:
        self.host, self.priority, self.device = host, priority, DEVICE
        self.queue: list[Callable[[], Any]] = []

    def run(self, until: int | None = None) -> None:
        """Make the copies that are queued, or the first ``until`` of them."""
        count = len(self.queue) if until is None else until
        due, self.queue = self.queue[:count], self.queue[count:]
        for copy in due:
            copy()

    def wait_stream(self, other: "Stream") -> None:
        self.host.note("wait_stream")
        other.run()

    def wait_event(self, event: "Event") -> None:
        self.host.note("wait_event")
        event.arrive()

    def record_event(self, event: "Event | None" = None) -> "Event":
        event = event or Event(self.host)
        event.record(self)
        return event

    def synchronize(self) -> None:
        self.host.synchronised("stream.synchronize")
        self.run()

    def query(self) -> bool:
        return not self.queue


class Event:
    """A point in a stream: all that was queued before it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.stream: Stream | None = None
        self.last: Callable[[], Any] | None = None

    def record(self, stream: Stream | None = None) -> None:
        self.stream = stream or self.host.stream
        self.last = self.stream.queue[-1] if self.stream.queue else None

    def arrive(self) -> None:
        """Make the copies up to this point, if they are still queued."""
        if self.stream is not None and self.last in self.stream.queue:
            self.stream.run(self.stream.queue.index(self.last) + 1)

    def synchronize(self) -> None:
        self.host.synchronised("event.synchronize")
        self.arrive()

    def wait(self, stream: Stream | None = None) -> None:
        self.arrive()

    def query(self) -> bool:
        return self.stream is None or self.last not in self.stream.queue

    def elapsed_time(self, _other: "Event") -> float:
        return 0.0


class _GeneratorKind(type(_OriginalGenerator)):  # type: ignore[misc]
    """Every generator is one of ours to ``isinstance``."""

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, _OriginalGenerator)


class Generator(_OriginalGenerator, metaclass=_GeneratorKind):
    """A generator of random numbers; one for the card draws others than one for the CPU, as on a GPU."""

    def __new__(cls, device: Any = "cpu") -> "Generator":
        made = _OriginalGenerator.__new__(cls)
        made.place = torch.device(device)
        return made

    def __init__(self, device: Any = "cpu") -> None:
        super().__init__()

    @property
    def device(self) -> torch.device:
        return DEVICE if self.place.type == "cuda" else self.place

    def manual_seed(self, seed: int) -> "Generator":
        super().manual_seed(seed + OTHER_NUMBERS if self.place.type == "cuda" else seed)
        return self


def replace_cuda(patches: Patches, host: Host) -> None:
    """Let ``torch.cuda``, ``torch.accelerator`` and cuDNN answer for a simulated card."""
    default = host.stream

    @contextmanager
    def stream(chosen: Stream | None) -> Iterator[None]:
        before = host.stream
        host.stream = chosen or before
        try:
            yield
        finally:
            host.stream = before

    def count_free(_device: Any = None) -> tuple[int, int]:
        return max(0, host.capacity - host.allocated()), host.capacity

    class HostStream(Stream):
        def __init__(self, device: Any = None, priority: int = 0, **_: Any) -> None:
            super().__init__(host, priority)

    class HostEvent(Event):
        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__(host)

    properties = SimpleNamespace(
        name=f"simulated {host.gpu.name}",
        major=host.gpu.capability[0],
        minor=host.gpu.capability[1],
        total_memory=host.capacity,
        multi_processor_count=132,
        warp_size=32,
        L2_cache_size=50 << 20,
        gcnArchName="",
    )

    def choose_device(device: Any) -> None:
        if not isinstance(device, int) and torch.device(device).index is None:
            raise ValueError(
                f"Expected a torch.device with a specified index or an integer, but got:{device}"
            )

    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "init": lambda: None,
        "_lazy_init": lambda: None,
        "device_count": lambda: host.gpus,
        "current_device": lambda: 0,
        "set_device": choose_device,
        "get_device_name": lambda _device=None: properties.name,
        "get_device_capability": lambda _device=None: host.gpu.capability,
        "get_device_properties": lambda _device=None: properties,
        "is_bf16_supported": lambda *_, **__: True,
        "mem_get_info": count_free,
        "memory_allocated": lambda _device=None: host.allocated(),
        "memory_reserved": lambda _device=None: host.allocated(),
        "max_memory_allocated": lambda _device=None: host.peak_allocated(),
        "max_memory_reserved": lambda _device=None: host.peak_allocated(),
        "reset_peak_memory_stats": lambda _device=None: host.reset_peak(),
        "empty_cache": lambda: host.note("empty_cache"),
        "ipc_collect": lambda: None,
        "synchronize": lambda _device=None: host.synchronised("cuda.synchronize"),
        "is_current_stream_capturing": lambda: False,
        "current_stream": lambda _device=None: host.stream,
        "default_stream": lambda _device=None: default,
        "stream": stream,
        "Stream": HostStream,
        "Event": HostEvent,
        "manual_seed": lambda _seed: None,
        "manual_seed_all": lambda _seed: None,
    }
    for name, answer in answers.items():
        patches.set(torch.cuda, name, answer)
    patches.set(torch, "Generator", Generator)
    patches.set(torch.version, "cuda", "12.8")  # torchao asks it for float8
    patches.set(torch.accelerator, "is_available", lambda *_, **__: True)
    patches.set(torch.accelerator, "current_accelerator", lambda *_, **__: torch.device("cuda"))
    patches.set(torch.accelerator, "device_count", lambda: host.gpus)
    patches.set(torch.backends.cudnn, "is_available", lambda: True)
    patches.set(torch.backends.cudnn, "version", lambda: host.cudnn)
