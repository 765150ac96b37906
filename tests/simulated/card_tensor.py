"""Tensors of ``Card``: they say where they are, and their numbers lie in RAM.

``CardTensor`` wraps a real tensor and a device. ``CardMode`` runs every operator on the real tensors,
refuses what mixes devices, and makes copies on a side stream late: until somebody waits for them, their
target holds NaN.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.simulated.cuda import DEVICE

CPU = torch.device("cpu")
PLAIN = {Tensor, nn.Parameter, nn.Buffer}
MOVES = {"copy_", "_to_copy", "index", "index_put_", "_index_put_impl_", "set_"}  # may mix devices
NOT_THERE_YET = 77  # stands for NaN in whole numbers


class CardTensor(Tensor):
    """A tensor on the card, or one in host memory that may be moved there in place (see ``data``)."""

    held: Tensor

    @staticmethod
    def __new__(cls, real: Tensor, device: torch.device = DEVICE) -> "CardTensor":
        made = Tensor._make_wrapper_subclass(
            cls,
            real.size(),
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            layout=real.layout,
            device=device,
        )
        made.held = real
        return made

    def __init__(self, real: Tensor, device: torch.device = DEVICE) -> None: ...

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        raise RuntimeError(f"{func} on a tensor of a card that is gone")

    def __repr__(self) -> str:
        return f"CardTensor({self.held}, device='{self.device}')"

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, **how: Any) -> Any:
        if self.device.type != "cpu":
            raise TypeError(f"can't convert {self.device} device type tensor to numpy")
        return self.held.numpy(**how)


_TENSOR_DATA = torch._C.TensorBase.data


def _get_data(tensor: CardTensor) -> CardTensor:
    return CardTensor(tensor.held, tensor.device)


def _set_data(tensor: CardTensor, new: Tensor) -> None:
    wrapped = new if isinstance(new, CardTensor) else CardTensor(new, CPU)
    _TENSOR_DATA.__set__(tensor, wrapped)  # which moves the device along
    tensor.held = wrapped.held


CardTensor.data = property(_get_data, _set_data)  # type: ignore[assignment]


def real_of(value: Any) -> Any:
    """Return what an operator on the host gets for what one on the card was given."""
    if isinstance(value, CardTensor):
        return value.held
    return CPU if isinstance(value, torch.device) and value.type == "cuda" else value


class CardMode(TorchDispatchMode):
    """Runs operators of the card on the host.

    Args:
        queue_of: () -> the queue of the stream at work if it is a side stream, else None.
        allocated: told of every tensor that is made on the card.
    """

    def __init__(
        self, queue_of: Callable[[], list[Any] | None], allocated: Callable[[CardTensor], None]
    ) -> None:
        super().__init__()
        self.queue_of, self.allocated = queue_of, allocated
        self.pinned: dict[int, Tensor] = {}  # by the address of their numbers; kept, so that it stays theirs

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not (PLAIN | {CardTensor}).issuperset(types):  # torchao's wrappers take themselves apart first
            return NotImplemented
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[-1]
        if name == "to":  # torchao calls it so that it arrives whole
            with self:
                return func.decompose(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        wrapped = [tensor for tensor in tensors if isinstance(tensor, CardTensor)]
        on_card = [tensor for tensor in wrapped if tensor.device.type == "cuda"]
        if name == "record_stream":
            return None
        if name in ("pin_memory", "_pin_memory", "is_pinned") or kwargs.get("pin_memory"):
            return self._pin(func, name, args, kwargs, on_card=bool(on_card))
        if on_card and name not in MOVES:
            _check_devices(func, tensors)
        target = kwargs.get("device")
        target = None if target is None else torch.device(target)
        if target is not None:
            kwargs = {**kwargs, "device": CPU if target.type == "cuda" else target}
        reals, named = tree_map(real_of, (args, kwargs))
        late = self._late(name, args, kwargs, target, reals, named)
        if late is not None:
            return late
        out = func(*reals, **named)
        if name == "_to_copy" and _shares(out, reals[0]):  # to another device is always a copy
            out = out.clone()
        goes_to_card = _lands_on_card(name, args, target, on_card=bool(on_card))
        return self._wrap(name, args, wrapped, out, goes_to_card=goes_to_card)

    def _wrap(
        self, name: str, args: tuple[Any, ...], wrapped: list[CardTensor], out: Any, *, goes_to_card: bool
    ) -> Any:
        """Give results on the card a wrapper; what came in wrapped goes out in the same one."""
        known = {id(tensor.held): tensor for tensor in wrapped}

        def give(result: Any) -> Any:
            if not isinstance(result, Tensor):
                return result
            if id(result) in known:
                return known[id(result)]
            if goes_to_card:
                made = CardTensor(result)
                self.allocated(made)
                return made
            return result

        if name in ("detach", "alias") and isinstance(args[0], CardTensor):
            return CardTensor(out, args[0].device)
        return tree_map(give, out)

    def _pin(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, on_card: bool
    ) -> Any:
        """Make, or ask for, pinned memory."""
        if name == "is_pinned":
            return not on_card and real_of(args[0]).untyped_storage().data_ptr() in self.pinned
        if kwargs.get("pin_memory"):
            made = func(*args, **{**kwargs, "pin_memory": False})
        elif on_card:
            raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
        else:
            made = real_of(args[0]).clone()
        self.pinned[made.untyped_storage().data_ptr()] = made
        return made

    def _late(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        target: torch.device | None,
        reals: tuple[Any, ...],
        named: dict[str, Any],
    ) -> Tensor | None:
        """Queue a copy to the card on the side stream at work; None where nothing is copied late.

        It reads its source when it is made, as the hardware does.
        """
        queue = self.queue_of()
        if queue is None:
            return None
        not_blocking = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
        if name == "copy_" and args[0].device.type == "cuda" and not_blocking:
            into, source = reals[0], reals[1]
            _spoil(into)
            queue.append(lambda: into.copy_(source))
            return args[0]
        if name == "_to_copy" and target is not None and target.type == "cuda" and not_blocking:
            source = reals[0]
            made = CardTensor(torch.empty_like(source, dtype=named.get("dtype") or source.dtype))
            self.allocated(made)
            _spoil(made.held)
            queue.append(lambda: made.held.copy_(source))
            return made
        return None


def _spoil(tensor: Tensor) -> None:
    """Fill what is not there yet."""
    with torch.no_grad():
        if tensor.dtype.itemsize == 1 and tensor.is_floating_point():
            tensor.view(torch.uint8).fill_(0x7F)  # float8's NaN
        else:
            tensor.fill_(math.nan if tensor.is_floating_point() else NOT_THERE_YET)


def _shares(out: Any, source: Any) -> bool:
    return isinstance(out, Tensor) and out.untyped_storage().data_ptr() == source.untyped_storage().data_ptr()


def _lands_on_card(name: str, args: tuple[Any, ...], target: torch.device | None, *, on_card: bool) -> bool:
    if name == "copy_":
        return args[0].device.type == "cuda"
    return target.type == "cuda" if target is not None else on_card


def _check_devices(func: Any, tensors: list[Tensor]) -> None:
    """Refuse tensors in host memory beside those on the card; single numbers may be anywhere."""
    if any(tensor.device.type == "cpu" and tensor.dim() > 0 for tensor in tensors):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found cuda:0 and cpu in {func}"
        )
