"""Sim: a dispatch mode in which "cuda:0" and the weights are fake, at full size, and everything is counted.

Real tensors on the CPU stay real (schedules, positions, pictures); whatever touches ``cuda:0`` has shapes
and no numbers. Small fakes keep their numbers beside them, so decisions that the code takes are the real
ones.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.simulated.call import Call
from tests.simulated.cuda import Stream
from tests.simulated.exchange import EXCHANGES, received
from tests.simulated.gpus import GPUS, product_kind
from tests.simulated.ledger import Ledger, first_float
from tests.simulated.work import KERNELLESS, SAME_DTYPE, is_view, work_of

SMALL = 1 << 18  # numbers; fakes up to this size keep theirs
BESIDE = 64 << 10  # bytes; CUDA's non-blocking copies of pageable memory up to this size do not wait
ASKS_DEVICE = torch.ops.prim.device.default
PLAIN = {Tensor, FakeTensor, nn.Parameter, nn.Buffer}
RANDOM = ("rand", "randn", "randn_like", "rand_like", "normal_", "uniform_", "randint")


class UnknownNumbersError(RuntimeError):
    """The code asks for numbers that no fake tensor has."""


class Sim(TorchDispatchMode):
    """The simulated card. It is also what ``torch.cuda`` answers from (see ``cuda.Host``).

    Args:
        gpu: a name of ``GPUS``.
        capacity: bytes of its memory; more raises ``torch.OutOfMemoryError``. The GPU's own unless given.
        gpus: how many there are on the machine.
        cudnn: its version, as ``torch.backends.cudnn.version()`` gives it.
    """

    def __init__(
        self, gpu: str = "H200", *, capacity: int | None = None, gpus: int = 1, cudnn: int = 91900
    ) -> None:
        super().__init__()
        self.gpu, self.gpus, self.cudnn = GPUS[gpu], gpus, cudnn
        self.capacity = self.gpu.memory if capacity is None else int(capacity)
        self.ledger = Ledger()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True, allow_fallback_kernels=False)
        self.stream = self.default_stream = Stream(self)
        self.pinned: set[int] = set()
        self.random = torch.Generator().manual_seed(0).get_state()
        self._making_fakes = False

    # --- what torch.cuda asks -------------------------------------------------------------------------------

    def allocated(self) -> int:
        return self.ledger.live["cuda"]

    def peak_allocated(self) -> int:
        return self.ledger.peak["cuda"]

    def reset_peak(self) -> None:
        """Do nothing: a report has the peaks of the whole run."""

    def note(self, what: str) -> None:
        self.ledger.event(self.ledger.notes, what)

    def synchronised(self, what: str) -> None:
        self.ledger.event(self.ledger.syncs, what)

    # --- making tensors -------------------------------------------------------------------------------------

    def host_tensor(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a fake tensor in host memory: a weight that was read from a file."""
        self._making_fakes = True
        try:
            return torch.empty(shape, dtype=dtype)
        finally:
            self._making_fakes = False

    def with_numbers(self, real: Tensor, device: torch.device) -> Tensor:
        """Return a fake tensor that keeps the numbers of a real one beside it."""
        with self.fake:
            fake = torch.empty_strided(real.shape, real.stride(), dtype=real.dtype, device=device)
        fake.numbers = real if real.numel() <= SMALL else None
        self._hold(fake)
        return fake

    def _hold(self, tensor: Tensor) -> None:
        self.ledger.hold(tensor, self._check_room)

    def _check_room(self, device: str, size: int) -> None:
        if device == "cuda" and self.allocated() + size > self.capacity:
            has = f"{self.allocated() / 1e9:.2f} of {self.capacity / 1e9:.2f} GB are taken"
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size / 1e9:.2f} GB; {has}")

    # --- dispatch -------------------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is ASKS_DEVICE and isinstance(args[0], FakeTensor):  # half of all calls
            return args[0].fake_device
        if not PLAIN.issuperset(types):  # a wrapper (torchao's float8) takes itself apart first
            return NotImplemented
        return self._dispatch(Call(func, args, kwargs or {}))

    def _dispatch(self, call: Call) -> Any:
        if call.name == "to":  # torchao calls it so that it arrives whole
            with self:
                return call.func.decompose(*call.args, **call.kwargs)
        if call.kwargs.get("pin_memory"):
            return self._pin(
                call, call.func(*call.args, **{**call.kwargs, "pin_memory": False, "device": "meta"})
            )
        if not (call.fakes or call.to_card or self._making_fakes):
            return self._run_real(call)
        special = self.SPECIAL.get(call.name)
        if special is not None and (result := special(self, call)) is not NotImplemented:
            return result
        return self._compute(call)

    def _run_real(self, call: Call) -> Any:
        """Run an operator on the CPU as it is; pinned memory is remembered, there is no allocator for it."""
        if call.name == "is_pinned":
            return self._is_pinned(call)
        with unset_fake_temporarily():
            if "pin_memory" not in call.name:
                return call.run()
            return self._mark_pinned(call.args[0].clone())

    def _compute(self, call: Call) -> Any:
        """Run an operator on shapes; count its memory and its work."""
        self._check_dtypes(call)
        try:
            with self.fake:
                out = call.run()
        except (DataDependentOutputException, DynamicOutputShapeException):
            return self._by_numbers(call)
        outs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        before = {id(tensor) for tensor in call.tensors}
        if call.name == "convolution" and call.on_card:
            out = outs[0] = self._convolved(call, outs[0])
        for tensor in outs:
            if id(tensor) not in before:
                self._hold(tensor)
        self._keep_numbers(call, outs)
        self._count(call, outs)
        return out

    def _by_numbers(self, call: Call) -> Any:
        """Run an operator whose result depends on numbers, on the numbers: the card waits for it."""
        if call.on_card:
            self.synchronised(call.name)
        real = self._on_numbers(call)
        if real is None:
            raise UnknownNumbersError(f"{call.func} needs the numbers of a large tensor")
        device = call.fakes[0].device
        return tree_map(
            lambda leaf: self.with_numbers(leaf, device) if isinstance(leaf, Tensor) else leaf, real
        )

    def _on_numbers(self, call: Call) -> Any:
        """Return what an operator gives on the numbers kept beside small fakes; None where one has none."""
        known = True

        def value(leaf: Any) -> Any:
            nonlocal known
            if isinstance(leaf, FakeTensor):
                kept = getattr(leaf, "numbers", None)
                known = known and kept is not None and kept.shape == leaf.shape
                return kept
            return torch.device("cpu") if isinstance(leaf, torch.device) else leaf

        args, kwargs = tree_map(value, (call.args, call.kwargs))
        if not known:
            return None
        try:
            with unset_fake_temporarily(), self._own_random(call):
                return call.func(*args, **kwargs)
        except Exception:  # an operator that only a GPU has
            return None

    @contextmanager
    def _own_random(self, call: Call) -> Iterator[None]:
        """Draw from a generator of the card's own: the process's is not disturbed."""
        if call.name not in RANDOM:
            yield
            return
        before = torch.get_rng_state()
        torch.set_rng_state(self.random)
        try:
            yield
        finally:
            self.random = torch.get_rng_state()
            torch.set_rng_state(before)

    def _keep_numbers(self, call: Call, outs: list[Tensor]) -> None:
        fakes = [tensor for tensor in outs if isinstance(tensor, FakeTensor)]
        small = bool(fakes) and all(tensor.numel() <= SMALL for tensor in outs)
        real = self._on_numbers(call) if small else None
        kept = [leaf for leaf in tree_leaves(real) if isinstance(leaf, Tensor)] if real is not None else []
        for index, fake in enumerate(fakes):
            fake.numbers = kept[index] if len(kept) == len(fakes) else None

    def _check_dtypes(self, call: Call) -> None:
        """Refuse products of different dtypes, which a GPU refuses and shapes alone do not show."""
        if call.name in SAME_DTYPE and call.on_card:
            dtypes = {tensor.dtype for tensor in call.tensors if tensor.is_floating_point()}
            if len(dtypes) > 1:
                names = ", ".join(sorted(str(dtype) for dtype in dtypes))
                raise RuntimeError(f"{call.name}: expected tensors of one dtype, but got {names}")

    def _count(self, call: Call, outs: list[Tensor]) -> None:
        if call.func.namespace in EXCHANGES:
            self.ledger.event(self.ledger.exchanged, call.name, received(call.name, call.args, outs))
            return
        if not self.ledger.counting or call.name in KERNELLESS:
            return
        written = call.written()
        if not any(tensor.device.type == "cuda" for tensor in (*outs, *written)):
            return
        if not written and is_view(call.fakes, outs):
            return
        flops, traffic = work_of(call.func, call.args, call.kwargs, call.tensors, outs, written)
        rate = product_kind(call.name, first_float(call.tensors))
        self.ledger.count(call.name, rate, flops, traffic)

    # --- operators with rules of their own ------------------------------------------------------------------

    def _item(self, call: Call) -> Any:
        """Give one number to the host."""
        if call.on_card:
            self.synchronised("item")
        kept = getattr(call.fakes[0], "numbers", None)
        if kept is not None:
            with unset_fake_temporarily():
                return kept.item()
        self.note("guessed a number")
        dtype = call.fakes[0].dtype
        return True if dtype == torch.bool else 0.5 if dtype.is_floating_point else 1

    def _record_stream(self, call: Call) -> None:
        self.note("record_stream")

    def _is_pinned(self, call: Call) -> bool:
        return call.tensors[0].untyped_storage()._cdata in self.pinned

    def _pin_copy(self, call: Call) -> Tensor:
        if call.on_card:
            raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
        return self._pin(call, call.args[0])

    def _pin(self, call: Call, like: Tensor) -> Tensor:
        """Return a new pinned tensor."""
        with self.fake:
            pinned = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device="cpu")
        pinned.numbers = getattr(like, "numbers", None)
        self._hold(pinned)
        return self._mark_pinned(pinned)

    def _mark_pinned(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self.pinned.add(storage._cdata)
        weakref.finalize(storage, self.pinned.discard, storage._cdata)
        self.ledger.event(self.ledger.copies, "pinned on the host", tensor.nbytes)
        return tensor

    def _copy(self, call: Call) -> Any:
        """Copy, and count what crosses between host and card."""
        into = call.name == "copy_"
        source, target = (call.args[1], call.args[0].device) if into else (call.args[0], call.target)
        target = target or source.device
        if {source.device.type, target.type} == {"cpu", "cuda"}:
            self._cross(call, source, target, call.args[0] if into else None)
        if not into and not call.fakes:  # a real tensor goes to the card
            dtype = call.kwargs.get("dtype") or source.dtype
            with unset_fake_temporarily():  # a large one is only a shape there
                real = source.to(dtype, copy=True) if source.numel() <= SMALL else source.to("meta", dtype)
            return self.with_numbers(real, target)
        if into and not isinstance(call.args[0], FakeTensor):  # a fake into real memory
            kept = getattr(source, "numbers", None)
            if kept is None:
                self.note("guessed what was copied to the host")
                return call.args[0]
            with unset_fake_temporarily():
                return call.args[0].copy_(kept)
        return NotImplemented

    def _cross(self, call: Call, source: Tensor, target: torch.device, into: Tensor | None) -> None:
        host = source if source.device.type == "cpu" else into
        pinned = host is not None and host.untyped_storage()._cdata in self.pinned
        given = call.kwargs.get("non_blocking", False) or (
            into is not None and len(call.args) > 2 and call.args[2]
        )
        words = [
            f"{source.device.type} to {target.type}",
            "pinned" if pinned else "pageable",
            *(["non-blocking"] if given else []),
            *(["on a side stream"] if self.stream is not self.default_stream else []),
        ]
        what = ", ".join(words)
        self.ledger.event(self.ledger.copies, what, source.nbytes)
        beside = target.type == "cuda" and source.nbytes <= BESIDE  # it goes with the command
        if not (given and (pinned or beside)):  # for pageable memory the host waits, whatever was asked
            self.synchronised(f"copy {what}")

    def _convolved(self, call: Call, out: Tensor) -> Tensor:
        """Give a result the layout that cuDNN gives it, and count the copies it makes for that."""
        x, weight = call.args[0], call.args[1]
        layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(out.dim())
        if layout is None:
            return out

        def channels_last(tensor: Tensor) -> bool:
            return tensor.is_contiguous(memory_format=layout) and not tensor.is_contiguous()

        wanted = layout if channels_last(x) or channels_last(weight) else torch.contiguous_format
        copied = [tensor for tensor in (x, weight) if not tensor.is_contiguous(memory_format=wanted)]
        if wanted is layout:
            with self.fake:
                out = torch.empty(out.shape, dtype=out.dtype, device=out.device, memory_format=layout)
        self._hold(out)
        size = sum(tensor.numel() * tensor.element_size() for tensor in copied)
        self._check_room("cuda", size)
        self.ledger.touch("cuda", size)
        for tensor in copied:
            moved = 2 * tensor.numel() * tensor.element_size()
            self.ledger.count("copy for a convolution", "half", 0, moved)
        return out

    SPECIAL: ClassVar[dict[str, Callable[["Sim", Call], Any]]] = {
        "_local_scalar_dense": _item,
        "record_stream": _record_stream,
        "is_pinned": _is_pinned,
        "pin_memory": _pin_copy,
        "_pin_memory": _pin_copy,
        "_to_copy": _copy,
        "copy_": _copy,
    }


current: Sim | None = None
"""The simulation at work in this process."""


@contextmanager
def simulate(gpu: str = "H200", **options: Any) -> Iterator[Sim]:
    """Let everything inside run on a card that is not there; options as of ``Sim``.

    Whatever had to be replaced in PyTorch and the project is put back at the end (see ``shims.py``).
    """
    from tests.simulated.shims import simulated_torch

    global current  # noqa: PLW0603 - functions of torch that are replaced have no other way to it
    assert current is None, "simulations do not nest"
    sim = Sim(gpu, **options)
    with simulated_torch(sim):
        current = sim
        try:
            with sim.fake, sim:
                yield sim
        finally:
            current = None
