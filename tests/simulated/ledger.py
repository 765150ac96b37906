"""What the simulated card counts: live bytes, kernels with their work, copies, synchronisations."""

import sys
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 512  # bytes: the allocator of torch rounds up to it
ROOT = Path(__file__).parent.parent.parent.as_posix() + "/"
# Files whose lines a report names: this project's, and the parts of libraries that compute or copy.
NAMED = (
    *(f"{ROOT}videogen/", f"{ROOT}benchmarks/"),
    *(
        "/diffusers/models/",
        "/diffusers/hooks/",
        "/diffusers/schedulers/",
        "/transformers/models/",
        "/torchao/",
    ),
)
PLACES, FUNCTIONS = 2, 5  # how many frames of the stack are kept, innermost first


class Kernel(NamedTuple):
    """One kernel, or several alike: what is counted is how often each was launched.

    ``functions`` are the names of the innermost functions, from which ``roofline.py`` tells the part of the
    network. ``rate`` is the kind of product (see ``gpus.py``); ``traffic`` are bytes read and written.
    """

    phase: str
    step: int
    name: str
    place: str
    functions: str
    rate: str
    flops: float
    traffic: int


class Event(NamedTuple):
    """A synchronisation, a copy between host and device, or whatever else happened somewhere."""

    phase: str
    step: int
    what: str
    place: str


class Ledger:
    """Counts by phase; ``step`` counts the forwards within a phase."""

    def __init__(self) -> None:
        self.phase_name, self.step = "start", 0
        self.kernels: Counter[Kernel] = Counter()
        self.copies: Counter[Event] = Counter()  # bytes
        self.syncs: Counter[Event] = Counter()
        self.notes: Counter[Event] = Counter()  # streams, and what had to be guessed
        self.attention: Counter[Event] = Counter()
        self.exchanged: Counter[Event] = Counter()  # bytes that go to other ranks
        self.live: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.peaks: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.step_peaks: Counter[tuple[str, int, str]] = Counter()  # by phase, step and device
        self.peak_places: dict[tuple[str, str], str] = {}
        self.counting = True  # kernels; memory always is
        self._known: dict[int, tuple[str, int]] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens inside under a name of its own."""
        before, self.phase_name = (self.phase_name, self.step), name
        self.step = 0
        for device in tuple(self.live):
            self._note_peak(device)
        try:
            yield
        finally:
            self.phase_name, self.step = before

    def begin_step(self) -> None:
        """Count what follows for the next step of the phase."""
        self.step += 1

    def event(self, table: Counter[Event], what: str, amount: int = 1) -> None:
        """Count something with the place in the code where it happened."""
        table[Event(self.phase_name, self.step, what, where())] += amount

    def hold(self, tensor: Tensor, limit: Callable[[str, int], None]) -> None:
        """Count the memory of a tensor until it is freed; views share it.

        Args:
            limit: (device type, bytes) -> None, or it raises because there is no room.
        """
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        device = tensor.device.type
        size = -(-size // BLOCK) * BLOCK if device == "cuda" else size
        limit(device, size)
        self._known[key] = (device, size)
        self.live[device] += size
        weakref.finalize(storage, self._free, key)
        self._note_peak(device)

    def touch(self, device: str, size: int) -> None:
        """Count memory that an operator takes only while it runs."""
        self.live[device] += size
        self._note_peak(device)
        self.live[device] -= size

    def _free(self, key: int) -> None:
        device, size = self._known.pop(key)
        self.live[device] -= size

    def _note_peak(self, device: str) -> None:
        now, peaks = self.live[device], self.peaks[self.phase_name]
        self.peak[device] = max(self.peak[device], now)
        step = (self.phase_name, self.step, device)
        self.step_peaks[step] = max(self.step_peaks[step], now)
        if now > peaks[device]:
            if now > peaks[device] * 1.002:  # finding the place takes longer than the rest
                self.peak_places[self.phase_name, device] = where()
            peaks[device] = now

    def count(self, name: str, rate: str, flops: float, traffic: int) -> None:
        """Count one kernel, if kernels are counted at the moment."""
        if self.counting:
            place, functions = stack()
            self.kernels[
                Kernel(self.phase_name, self.step, name, place, functions, rate, flops, traffic)
            ] += 1


def where() -> str:
    """Return the innermost lines of the stack that are worth naming."""
    return stack()[0]


def stack() -> tuple[str, str]:
    """Return the innermost lines worth naming, and the functions they are in."""
    places: list[str] = []
    functions: list[str] = []
    frame = sys._getframe(2)
    while frame is not None and len(functions) < FUNCTIONS:
        file = frame.f_code.co_filename
        if any(part in file for part in NAMED):
            functions.append(frame.f_code.co_qualname)
            if len(places) < PLACES:
                short = file.removeprefix(ROOT).rpartition("site-packages/")[2]
                places.append(f"{short}:{frame.f_lineno}")
        frame = frame.f_back  # type: ignore[assignment]
    return " < ".join(places) or "?", " < ".join(functions)


def tensor_bytes(tensor: Tensor) -> int:
    """Return the bytes that a kernel reads or writes of a tensor; what is broadcast is read once."""
    numbers = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        numbers *= size if stride else 1
    return numbers * tensor.element_size()


def first_float(tensors: list[Tensor]) -> torch.dtype:
    """Return the dtype that an operator computes in: that of its first floating-point input."""
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)
