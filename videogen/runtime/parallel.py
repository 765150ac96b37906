"""Parallel generation on several GPUs, applied to a built pipeline from outside.

Every rank holds an equal shard of each frame's tokens, so per-frame inputs (noise levels, positions, audio)
need no sharding. Only self-attention needs other ranks' tokens; diffusers' context parallelism exchanges them
(Ulysses, Ring or both). If a frame's tokens do not divide evenly, shards are padded with a token that is
never attended to and is dropped at the end. With CFG parallel, guidance branches run on different ranks.
Everything else (text, VAE encode, solver steps) runs on every rank.

Source: spec performance sections (d) and (e). Shapes: B batch, L tokens, N heads, K head width.
"""

import atexit
import itertools
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import lru_cache, partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from diffusers.models import attention_dispatch as kernels
from diffusers.models._modeling_parallel import ContextParallelConfig, ParallelConfig
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from videogen import distributed
from videogen.diffusion.guidance import Velocity
from videogen.distributed import Degrees, Ranks
from videogen.errors import InputError
from videogen.models.attention import AttentionProcessor, Spans, attend, attend_spans
from videogen.models.interface import Network, Pipeline, TokenAxis
from videogen.runtime.memory import CPU, blocks
from videogen.runtime.token_sharding import SequenceSharding, ShardSpec, all_gather
from videogen.runtime.vae_parallel import shard_decoder

logger = logging.getLogger(__name__)

Made = TypeVar("Made")
PEER_TIMEOUT = timedelta(
    days=1
)  # to wait for others, while rank 0 downloads or writes; torchrun watches the processes

Weighted = tuple[Tensor, Tensor]
"""Result of attention [B, L, N, K], and the log-sum-exp of its weights [B, L, N]."""


class Communicator:
    """Ranks of the job and their collective operations; a single process is a group of one."""

    def __init__(self, own: Ranks, store: dist.Store | None = None) -> None:
        self.own, self.store = own, store

    @property
    def is_main_process(self) -> bool:
        """Return whether this rank is rank 0, which plans, writes and prints."""
        return self.own.is_main_process

    @property
    def is_single(self) -> bool:
        """Return whether there is only one process."""
        return self.own.size == 1

    def broadcast(self, content: Any) -> Any:
        """Return rank 0's ``content`` on every rank."""
        if self.is_single:
            return content
        box = [content if self.is_main_process else None]
        dist.broadcast_object_list(box, src=0, device=CPU)
        return box[0]

    def local_rank_first(self, make: Callable[[], Made]) -> Made:
        """Return ``make()`` on every rank; local rank 0 of each machine runs it before the others."""
        if self.is_single:
            return make()
        made = [make()] if self.own.local_rank == 0 else []
        dist.barrier(self.cpu_group())
        return made[0] if made else make()

    @lru_cache  # noqa: B019 - there is one communicator
    def cpu_group(self) -> dist.ProcessGroup:
        """Return the process group of all ranks for waiting on the CPU; all ranks make it together."""
        return dist.new_group(backend="gloo", timeout=PEER_TIMEOUT)

    def is_first_failure(self) -> bool:
        """Return True if no other rank has failed before."""
        try:
            return self.store is None or self.store.add("videogen/failed", 1) == 1
        except RuntimeError:  # the store ended with torchrun
            return False


SINGLE_PROCESS = Communicator(Ranks())


def init_communicator(*, wanted: bool) -> Communicator:
    """Return this process's communicator, created at the first call; ``wanted`` is rank 0's decision.

    Raises:
        InputError: more ranks than GPUs on a machine.
    """
    own = distributed.get_ranks()
    if not wanted or own.size == 1:
        return SINGLE_PROCESS
    if isinstance(distributed.communicator, Communicator):
        return distributed.communicator
    gpus = torch.cuda.device_count()
    if gpus:
        if own.local_size > gpus:
            what = f"{own.local_size} ranks on a machine with {gpus} GPUs"
            raise InputError("--use_usp", None, what, f"try --nproc_per_node={gpus}")
        torch.cuda.set_device(own.local_rank)
    store, rank, size = next(dist.rendezvous("env://", own.rank, own.size, timeout=PEER_TIMEOUT))
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    # With device_id, NCCL connects here, so that its errors appear here.
    device = torch.device("cuda", own.local_rank) if gpus else None
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=size, timeout=PEER_TIMEOUT, device_id=device
    )
    atexit.register(dist.destroy_process_group)
    distributed.communicator = communicator = Communicator(own, store)
    return communicator


def apply_parallelism(pipeline: Pipeline, degrees: Degrees, device: torch.device) -> None:
    """Apply CFG, sequence and VAE parallelism to a pipeline; every rank calls this."""
    if degrees.size == 1:
        return
    mesh = mesh_of(degrees, device.type)
    if degrees.cfg > 1:
        pipeline.evaluate = partial(evaluate_in_parallel, mesh["cfg"].get_group())
    if degrees.sequence > 1:
        cp = ContextParallelConfig(ring_degree=degrees.ring, ulysses_degree=degrees.ulysses, mesh=mesh)
        config = ParallelConfig(context_parallel_config=cp)
        config.setup(dist.get_rank(), dist.get_world_size(), device, mesh=mesh)
        exchanges = [shard_tokens(transformer, config) for transformer in pipeline.transformers]
        if exchanges:
            pipeline.sync_scalar = partial(broadcast_scalar, exchanges[0].group)
    shard_decoder(pipeline.vae, mesh._flatten("all").get_group())


@lru_cache  # process groups are limited, and a job may load many models
def mesh_of(degrees: Degrees, kind: str) -> DeviceMesh:
    """Return the device mesh with the dimensions cfg, ring and ulysses."""
    shape = (degrees.cfg, degrees.ring, degrees.ulysses)
    return init_device_mesh(kind, shape, mesh_dim_names=("cfg", "ring", "ulysses"))


def broadcast_scalar(group: dist.ProcessGroup, number: float) -> float:
    """Broadcast a number from a group's first rank, so that ranks that round differently decide alike."""
    box = torch.tensor([number], dtype=torch.float64)
    dist.broadcast(box, group=group, group_src=0)
    return box.item()


def evaluate_in_parallel(
    group: dist.ProcessGroup, branches: Sequence[str], velocity: Velocity
) -> Sequence[Tensor]:
    """Evaluate guidance branches side by side; same result as ``guidance.evaluate_sequentially``.

    They are dealt out in order; ``group`` has one rank of each group of ranks that shares a branch.
    """
    if len(branches) == 1:
        return [velocity(branches[0]).float()]
    groups, own = dist.get_world_size(group), dist.get_rank(group)
    velocities = [velocity(branch).float() for branch in branches[own::groups]]
    assert velocities, "more groups than branches"
    velocities += [torch.zeros_like(velocities[0])] * (-(-len(branches) // groups) - len(velocities))
    gathered = all_gather(torch.stack(velocities), group)
    return [gathered[index % groups, index // groups] for index in range(len(branches))]


class Exchange:
    """Token sharding of one transformer: shards its tensors, and attends over the tokens of all ranks."""

    def __init__(self, config: ParallelConfig) -> None:
        self.config, self.cp = config, config.context_parallel_config
        self.group, self.rank = self.cp._flattened_mesh.get_group(), self.cp._flattened_mesh.get_local_rank()
        self.ranks = self.cp.ring_degree * self.cp.ulysses_degree
        self.sharding = SequenceSharding(())  # of the current forward

    def spec(self, tokens: TokenAxis) -> ShardSpec:
        """Return the split of one frame's tokens."""
        return self.sharding.sections[tokens.section][1]

    def shard(self, tokens: TokenAxis, x: Tensor) -> Tensor:
        """Return this rank's tokens of every frame."""
        (axis, _), spec = tokens, self.spec(tokens)
        frames = x.unflatten(axis, (-1, spec.length))
        return spec.shard(frames, axis + 1, self.rank).flatten(axis, axis + 1).contiguous()

    def unshard(self, tokens: TokenAxis, x: Tensor) -> Tensor:
        """Return the tokens of all ranks."""
        (axis, _), spec = tokens, self.spec(tokens)
        frames = x.unflatten(axis, (-1, spec.shard_length))
        return spec.unshard(frames, axis + 1, self.group).flatten(axis, axis + 1)

    @torch.compiler.disable
    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, backend: str | None, spans: Spans | None
    ) -> Tensor:
        """Attend from local tokens [B, L/ranks, N, K] to all ranks' tokens (or those of ``spans``)."""
        forward = self._ring(backend) if self.cp.ring_degree > 1 else self._ulysses(backend, spans)
        return kernels._templated_context_parallel_attention(
            query, key, value, forward_op=forward, backward_op=None, _parallel_config=self.config
        )

    def _ulysses(self, backend: str | None, spans: Spans | None) -> Callable[..., Tensor]:
        """Return a forward over all tokens and some of the heads."""
        kernel = partial(attend, backend=backend)

        def forward(_: object, q: Tensor, k: Tensor, v: Tensor, *__: object, **___: object) -> Tensor:
            order = self.sharding.sequence_order(0, self.ranks, q.device)
            k, v = k.index_select(1, order), v.index_select(1, order)
            if spans is None:
                return kernel(q, k, v)
            out = attend_spans(kernel, q.index_select(1, order), k, v, spans)
            return out.index_select(1, self.sharding.shard_order(self.ranks, q.device))

        return forward

    def _ring(self, backend: str | None) -> Callable[..., Weighted]:
        """Return a forward over one rank's tokens per hop, starting with the local ones."""
        hops = itertools.count(self.cp._ring_local_rank)
        kernel = RING_KERNELS[str(getattr(backend, "value", backend) or "native")]

        def forward(_: object, q: Tensor, k: Tensor, v: Tensor, *__: object, **___: object) -> Weighted:
            first = next(hops) % self.cp.ring_degree * self.cp.ulysses_degree
            order = self.sharding.sequence_order(first, first + self.cp.ulysses_degree, k.device)
            k, v = k.index_select(1, order), v.index_select(1, order)
            return kernel(None, q, k, v, return_lse=True, _save_ctx=False)

        return forward


def _cpu_attention(_: object, *heads: Tensor, **__: object) -> Weighted:
    """Run torch's CPU kernel with the signature of diffusers' forward ops."""
    transposed = (x.transpose(1, 2) for x in heads)
    out, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*transposed)
    return out.transpose(1, 2), weight.transpose(1, 2)


RING_KERNELS: dict[str, Callable[..., Weighted]] = {
    "native": _cpu_attention,
    "_native_cudnn": kernels._cudnn_attention_forward_op,
    "_native_flash": kernels._native_flash_attention_forward_op,
    "flash": kernels._flash_attention_forward_op,
    "sage": kernels._sage_attention_forward_op,
}


def works_in_ring(backend: str, device: torch.device) -> bool:
    """Return True if a kernel (diffusers' name) supports ring attention."""
    return backend in RING_KERNELS and (backend != "native" or device.type == "cpu")


def shard_tokens(transformer: Network, config: ParallelConfig) -> Exchange:
    """Shard a transformer's tokens over ranks before its blocks and unshard them after its head."""
    exchange, plan = Exchange(config), transformer.token_plan
    for module in transformer.modules():
        if isinstance(processor := getattr(module, "processor", None), AttentionProcessor):
            processor.exchange = exchange

    def begin(_module: nn.Module, _arguments: object, inputs: dict[str, Tensor]) -> None:
        sections = transformer.token_sections(inputs)
        exchange.sharding = SequenceSharding(
            tuple((frames, ShardSpec(tokens, exchange.ranks)) for frames, tokens in sections)
        )

    def enter(_module: nn.Module, arguments: tuple) -> tuple:
        places = plan.inputs[1]
        return tuple(
            exchange.shard(places[index], argument) if index in places else argument
            for index, argument in enumerate(arguments)
        )

    def set_frame_size(_module: nn.Module, arguments: tuple) -> tuple:
        assert plan.frame_size is not None
        size = exchange.spec(plan.head[1]).shard_length
        return *arguments[: plan.frame_size], size, *arguments[plan.frame_size + 1 :]

    def after(name: str, change: Callable[[TokenAxis, Tensor], Tensor], tokens: TokenAxis) -> None:
        module = transformer.get_submodule(name)
        module.register_forward_hook(lambda _module, _arguments, output: change(tokens, output))

    transformer.register_forward_pre_hook(begin, with_kwargs=True)
    transformer.get_submodule(plan.inputs[0]).register_forward_pre_hook(enter)
    for block in () if plan.frame_size is None else blocks(transformer):
        block.register_forward_pre_hook(set_frame_size)
    after(plan.positions[0], exchange.shard, plan.positions[1])
    after(plan.head[0], exchange.unshard, plan.head[1])
    return exchange
