"""Block streaming: transformer blocks and encoder layers are on the device only while they run.

Weights stay in RAM as they were loaded, memory-mapped or not; only the uploader's buffers are pinned. While a
block runs, the next one of its stack is uploaded. A block that a step cache skips is not uploaded, or evicted
at once. So at most two blocks are on the device, and none after the forward.

diffusers' group offload is not used: it keeps torchao's weights on the device (its issue 14433), needs all
weights in pinned memory (rounded up to powers of two by torch), and blocks the host for every block.
"""

from collections.abc import Iterator, Sequence

from diffusers.hooks.hooks import HookRegistry, ModelHook
from torch import nn

from videogen.runtime.component_offload import Copier, Upload

HOOK = "videogen_streaming"


class Stack:
    """Modules that run one after the other, each on the device only during its own forward."""

    def __init__(self, modules: Sequence[nn.Module], copier: Copier) -> None:
        self.modules, self.copier = modules, copier
        self.uploads: dict[int, Upload] = {}
        for index, module in enumerate(modules):
            # A diffusers hook, because a step cache's hooks wrap it and decide whether it runs.
            HookRegistry.check_if_exists_or_initialize(module).register_hook(_Streamed(self, index), HOOK)

    def enter(self, index: int) -> None:
        """Wait for a module's weights and start to upload those of the next one."""
        upload = self.uploads.pop(index, None) or self._fetch(index)
        self.clear()
        self.uploads[index] = upload
        upload.wait()
        if index + 1 < len(self.modules):
            self.uploads[index + 1] = self._fetch(index + 1)

    def leave(self, index: int) -> None:
        """Evict a module's weights."""
        self.uploads.pop(index).evict()

    def clear(self) -> None:
        """Evict all modules."""
        while self.uploads:
            self.uploads.popitem()[1].evict()

    def _fetch(self, index: int) -> Upload:
        return Upload(self.modules[index], self.copier)


class _Streamed(ModelHook):
    """Hook that uploads one module of a stack for its forward."""

    def __init__(self, stack: Stack, index: int) -> None:
        super().__init__()
        self.stack, self.index = stack, index

    def pre_forward(self, _module: nn.Module, *args: object, **kwargs: object) -> tuple[tuple, dict]:
        self.stack.enter(self.index)
        return args, kwargs

    def post_forward(self, _module: nn.Module, output: object) -> object:
        self.stack.leave(self.index)
        return output


def stream(module: nn.Module, stacks: Sequence[Sequence[nn.Module]], copier: Copier) -> None:
    """Stream stacks of modules within ``module``; all are evicted when its forward ends or fails."""
    streamed = [Stack(modules, copier) for modules in stacks]

    def clear(*_: object) -> None:
        for stack in streamed:
            stack.clear()

    module.register_forward_hook(clear, always_call=True)


def layer_stacks(module: nn.Module) -> Iterator[list[nn.Module]]:
    """Split a module's weights: every list of layers is a stack, and so is each module beside them."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield list(child)
        elif [*child.parameters(recurse=False), *child.buffers(recurse=False)]:
            yield [child]
        else:
            yield from layer_stacks(child)
