"""The work of one kernel: FLOPs, and bytes that it reads and writes.

One call of an operator is one kernel, whatever the library makes of it (a convolution with its bias,
padding with its fill). Operators of ``torch.ops.videogen`` are hand-written kernels: they read their inputs
and write their outputs once; what they change in place is both.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils.flop_counter import flop_registry

from tests.simulated.ledger import tensor_bytes

# What allocates or renames, and launches nothing.
KERNELLESS = {
    *(
        "empty",
        "empty_strided",
        "empty_like",
        "new_empty",
        "new_empty_strided",
        "detach",
        "alias",
        "lift_fresh",
    ),
    *("_unsafe_view", "set_", "is_pinned", "wait_tensor"),
}
# Products whose tensors must have one dtype on a GPU.
SAME_DTYPE = {
    *("mm", "addmm", "bmm", "baddbmm", "convolution"),
    *("_scaled_dot_product_cudnn_attention", "_scaled_dot_product_flash_attention"),
    "_scaled_dot_product_efficient_attention",
}
READS_ROWS = {"index_select", "embedding", "gather", "index"}  # of a table only what they give
WRITES_ONLY = {"fill_", "zero_", "normal_", "uniform_"}


def is_view(ins: Sequence[Tensor], outs: Sequence[Tensor]) -> bool:
    """Return whether all results share memory with inputs."""
    given = {tensor.untyped_storage()._cdata for tensor in ins}
    return all(out.untyped_storage()._cdata in given for out in outs if isinstance(out, FakeTensor))


def work_of(
    func: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    ins: Sequence[Tensor],
    outs: Sequence[Tensor],
    written: Sequence[Tensor],
) -> tuple[float, int]:
    """Return FLOPs and traffic of one call; ``written`` are the tensors it changes in place."""
    flops = 0.0
    if (packet := func._overloadpacket) in flop_registry:
        flops = flop_registry[packet](*args, **kwargs, out_val=outs[0] if len(outs) == 1 else outs)
    return flops, _traffic(func._schema.name.split("::")[-1], ins, outs, written)


def _traffic(name: str, ins: Sequence[Tensor], outs: Sequence[Tensor], written: Sequence[Tensor]) -> int:
    changed = {id(tensor): tensor for tensor in written}
    made = sum(tensor_bytes(out) for out in outs if id(out) not in changed)
    stored = sum(map(tensor_bytes, changed.values()))
    read = sum(map(tensor_bytes, {id(tensor): tensor for tensor in ins}.values()))
    if name in READS_ROWS:
        return 2 * made
    if name in WRITES_ONLY:
        return stored
    if name == "copy_":  # what it overwrites is not read
        return read
    return read + made + stored
