"""Card: a pretend ``cuda:0`` with real numbers, whose side-stream copies are late. A pytest plugin.

    python -m pytest -p tests.simulated.card -n 0 tests/runtime/test_gpu.py

It proves on a CPU that the code puts everything on the right device, waits for what it copies on a side
stream, and computes the same as on the CPU. It says nothing about kernels, speed or memory, and
``Module.compile`` does nothing on it: no code can be generated for a card that is not there.

What is replaced besides ``torch.cuda`` (``cuda.py``), each put back at the end:

* ``scaled_dot_product_attention`` computes on the host: its choice of a kernel asks the driver.
* ``Module._apply`` and ``weight_loader.load_weights``: parameters are ``CardTensor`` from the start, so that
  they can
  move in place.
* Thread pools work one after the other (``shims.py``).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from tests.simulated.card_tensor import CPU, CardMode, CardTensor, real_of
from tests.simulated.cuda import Stream, replace_cuda
from tests.simulated.gpus import GPUS
from tests.simulated.guard import load_guard
from tests.simulated.patches import Patches
from tests.simulated.shims import float32_precision, load_libraries, serial_pools

HOST_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
_original_attention = functional.scaled_dot_product_attention


class Card:
    """What ``torch.cuda`` answers from (see ``cuda.Host``)."""

    gpus, cudnn = 1, 91900

    def __init__(self) -> None:
        self.gpu = GPUS["H200"]
        self.capacity = self.gpu.memory
        self.stream = self.default_stream = Stream(self)
        self.made = 0

    def queue(self) -> list[Any] | None:
        """Return the queue of the stream at work; None on the default stream."""
        return None if self.stream is self.default_stream else self.stream.queue

    def add(self, tensor: CardTensor) -> None:
        self.made += tensor.held.nbytes

    def allocated(self) -> int:
        return 0

    def peak_allocated(self) -> int:
        return self.made  # of all tensors ever: enough to say that the card was used

    def reset_peak(self) -> None:
        self.made = 0

    def note(self, what: str) -> None: ...

    def synchronised(self, what: str) -> None: ...


@contextmanager
def pretend_card() -> Iterator[Card]:
    """Let everything inside run on a card whose numbers lie in RAM."""
    load_libraries()
    load_guard()
    card = Card()
    with Patches() as patches, float32_precision():
        replace_cuda(patches, card)
        patches.set(functional, "scaled_dot_product_attention", _attend)
        patches.set(nn.Module, "_apply", _apply)
        patches.set(nn.Module, "compile", lambda *_, **__: None)
        serial_pools(patches)
        _wrap_weights(patches)
        lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor begins on the CPU, and is moved
        try:
            with CardMode(card.queue, card.add):
                yield card
        finally:
            torch._C._set_only_lift_cpu_tensors(lifted)


def _wrap_weights(patches: Patches) -> None:
    """Let weights that are read into host memory be ``CardTensor``."""
    from videogen.models import weight_loader

    original = weight_loader.load_weights

    def load_weights(*args: Any, **kwargs: Any) -> nn.Module:
        module = original(*args, **kwargs)
        for part in module.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None and not isinstance(parameter, CardTensor):
                    wrapped = CardTensor(parameter.data, CPU)
                    part._parameters[name] = nn.Parameter(wrapped, requires_grad=False)
            for name, buffer in part._buffers.items():
                if buffer is not None and not isinstance(buffer, CardTensor):
                    part._buffers[name] = CardTensor(buffer, CPU)
        return module

    patches.set(weight_loader, "load_weights", load_weights)


def _attend(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if not isinstance(query, CardTensor):
        return _original_attention(query, key, value, *args, **kwargs)
    reals = tree_map(real_of, (query, key, value, *args))
    with sdpa_kernel(HOST_KERNELS):
        out = _original_attention(*reals, **tree_map(real_of, kwargs))
    return CardTensor(out, query.device)


def _apply(module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """Do what ``Module._apply`` does with real tensors: parameters that can move stay the same objects."""
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
        if isinstance(parameter, CardTensor):
            parameter.data = new
        else:
            module._parameters[name] = nn.Parameter(new, requires_grad=False)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = function(buffer)
    return module


_session = ExitStack()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Begin to pretend before any test module asks whether there is a GPU."""
    del config
    _session.enter_context(pretend_card())


def pytest_unconfigure(config: pytest.Config) -> None:
    del config
    _session.close()
