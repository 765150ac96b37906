"""What ranks send one another: the bytes that one of them receives, by collective."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, distributed
from torch.utils._pytree import tree_leaves

EXCHANGES = ("c10d", "_c10d_functional")  # namespaces of the operators of torch.distributed


def received(name: str, args: tuple[Any, ...], outs: Sequence[Tensor]) -> int:
    """Return the bytes that a rank receives from others in one collective.

    Raises:
        KeyError: a collective that is not known here.
    """
    tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
    sizes = [tensor.numel() * tensor.element_size() for tensor in tensors]
    if name in ("wait_tensor", "send"):
        return 0
    if name == "_allgather_base_":  # (output, input, ...)
        return sizes[0] - sizes[1]
    if name == "all_gather_into_tensor":
        return outs[0].numel() * outs[0].element_size() - sizes[0]
    if name == "all_to_all_single":  # (input, sizes from each rank, sizes for each rank, group)
        group = distributed.distributed_c10d._resolve_process_group(args[3])
        parts = args[1] or [1] * group.size()
        return sizes[0] * (sum(parts) - parts[group.rank()]) // sum(parts)
    if name in ("broadcast_", "recv_"):
        return sum(sizes)
    raise KeyError(f"count what a rank receives in {name}")
