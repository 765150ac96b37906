"""What is replaced in PyTorch and the project while ``Sim`` is at work, and why. All of it is put back.

* ``torch.cuda``, ``torch.accelerator``, cuDNN's version: see ``cuda.py``.
* ``FakeTensor.data`` and ``Module._apply``: a fake tensor keeps its device in Python, which the originals
  do not move along; and for fakes ``_apply`` exchanges whole parameters where it keeps them for real
  tensors.
* ``FakeTensorMode.avoid_device_init``: although there seems to be a GPU, ``torch.tensor`` begins on the CPU.
* ``FakeTensor.numpy``: its numbers where they are kept, else zeros of the right shape.
* ``scaled_dot_product_attention``: which kernel is chosen, is decided in C++ for real GPUs only
  (``attention.py``).
* ``rms_norm``: one kernel on a GPU, several on a CPU, which this build takes fakes for.
* ``Module.compile`` does nothing: no code can be generated for a card that is not there.
* Thread pools work one after the other: dispatch modes belong to the thread that entered them.
* Temporary: ``runtime/memory.py`` and ``runtime/float8.py`` ask ``type(x) is Tensor``, which no subclass of a
  tensor is; there ``type`` answers for a fake as for a tensor. To go when they ask with ``isinstance``.
* The precision of float32 products is the process's; it is put back.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.nn import functional
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from tests.simulated import sim as running
from tests.simulated.attention import attend
from tests.simulated.cuda import replace_cuda
from tests.simulated.guard import load_guard
from tests.simulated.ledger import tensor_bytes
from tests.simulated.patches import Patches

_TENSOR_DATA = torch._C.TensorBase.data


@contextmanager
def simulated_torch(sim: "running.Sim") -> Iterator[None]:
    """Replace what is listed above, for a simulation."""
    load_libraries()
    load_guard()
    with Patches() as patches, float32_precision():
        replace_cuda(patches, sim)
        patches.set(FakeTensorMode, "avoid_device_init", True)
        patches.set(FakeTensor, "data", property(_get_data, _set_data))
        patches.set(FakeTensor, "numpy", _numpy)
        patches.set(nn.Module, "_apply", _apply)
        patches.set(functional, "scaled_dot_product_attention", attend)
        patches.set(functional, "rms_norm", _rms_norm)
        patches.set(nn.Module, "compile", lambda *_, **__: None)
        serial_pools(patches)
        yield


def load_libraries() -> None:
    """Import what asks for a GPU when it is imported, before one is simulated."""
    import diffusers  # noqa: F401
    import torchao.quantization  # noqa: F401
    import transformers.modeling_utils  # noqa: F401

    import videogen.engine.session  # noqa: F401


@contextmanager
def float32_precision() -> Iterator[None]:
    """Put back what a run sets for the whole process."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


class SerialPool:
    """Stands in for a thread pool: what is submitted is done at once, in this thread."""

    def __init__(
        self,
        _workers: int | None = None,
        _name: str = "",
        initializer: Callable[..., Any] | None = None,
        *_: Any,
    ) -> None:
        del initializer  # of threads

    def __enter__(self) -> "SerialPool":
        return self

    def __exit__(self, *_: object) -> None: ...

    def map(self, function: Callable[..., Any], *items: Iterable[Any]) -> Iterator[Any]:
        return iter([function(*each) for each in zip(*items, strict=False)])

    def submit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> "Future[Any]":
        done: Future[Any] = Future()
        try:
            done.set_result(function(*args, **kwargs))
        except BaseException as error:
            done.set_exception(error)
        return done

    def shutdown(self, *_: Any, **__: Any) -> None: ...


def serial_pools(patches: Patches) -> None:
    """Let every module of the project that has a thread pool work without threads."""
    for name, module in list(sys.modules.items()):
        if name.startswith("videogen.") and vars(module).get("ThreadPoolExecutor") is ThreadPoolExecutor:
            patches.set(module, "ThreadPoolExecutor", SerialPool)


def _get_data(tensor: FakeTensor) -> Tensor:
    return _TENSOR_DATA.__get__(tensor)


def _set_data(tensor: FakeTensor, new: Tensor) -> None:
    if running.current is not None and not isinstance(new, FakeTensor):
        new = running.current.with_numbers(new, new.device)
    _TENSOR_DATA.__set__(tensor, new)
    tensor.fake_device = new.fake_device
    tensor.numbers = getattr(new, "numbers", None)


def _numpy(tensor: FakeTensor, **_: Any) -> Any:
    if tensor.device.type != "cpu":
        raise TypeError(f"can't convert {tensor.device} device type tensor to numpy")
    numbers = getattr(tensor, "numbers", None)
    with unset_fake_temporarily():
        if numbers is not None:
            return numbers.numpy()
        return np.zeros(tuple(tensor.shape), torch.zeros(1, dtype=tensor.dtype).numpy().dtype)


def _apply(module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """Do what ``Module._apply`` does with real tensors: parameters stay the same objects."""
    if recurse:
        for child in module.children():
            child._apply(function)
    for name, parameter in module._parameters.items():
        if parameter is None:
            continue
        with torch.no_grad():
            new = function(parameter)
        if new is parameter:
            continue
        wrapped = is_traceable_wrapper_subclass(new) or is_traceable_wrapper_subclass(parameter)
        if wrapped or (isinstance(new, FakeTensor) and not isinstance(parameter, FakeTensor)):
            module._parameters[name] = nn.Parameter(new, requires_grad=False)
        else:
            parameter.data = new
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = function(buffer)
    return module


_original_rms_norm = functional.rms_norm


def _rms_norm(
    input: Tensor,  # noqa: A002 - the name that PyTorch gives it
    normalized_shape: list[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    sim = running.current
    fused = isinstance(input, FakeTensor) and (weight is None or weight.dtype == input.dtype)
    if sim is None or not fused or input.device.type != "cuda":
        return _original_rms_norm(input, normalized_shape, weight, eps)
    out = torch.empty_like(input)
    sums = input.shape[: -len(normalized_shape)]  # which live for a moment
    torch.empty(*sums, 1, dtype=torch.float32, device=input.device)
    sim.ledger.count("_fused_rms_norm", "half", 0, 2 * tensor_bytes(input))
    numbers = [getattr(tensor, "numbers", None) for tensor in (input, weight)]
    out.numbers = None
    if numbers[0] is not None and (weight is None or numbers[1] is not None):
        with unset_fake_temporarily():
            out.numbers = _original_rms_norm(numbers[0], normalized_shape, numbers[1], eps)
    return out
