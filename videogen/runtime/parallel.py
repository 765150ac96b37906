"""Parallel generation on several GPUs, applied to a built pipeline from outside.

Every rank holds an equal shard of each frame's tokens, so per-frame inputs (noise levels, positions, audio)
need no sharding. Only self-attention needs other ranks' tokens; diffusers' context parallelism exchanges them
(Ulysses, Ring or both). If a frame's tokens do not divide evenly, shards are padded with a token that is
never attended to and is dropped at the end. With CFG parallel, guidance branches run on different ranks.
Everything else (text, VAE encode, solver steps) runs on every rank.

Source: spec performance sections (d) and (e).
"""

import atexit
import itertools
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cached_property, lru_cache, partial
from typing import Any

import torch
import torch.distributed as dist
from diffusers import AutoencoderKLWan, HunyuanVideoTransformer3DModel
from diffusers.models import attention_dispatch as kernels
from diffusers.models._modeling_parallel import ContextParallelConfig, ParallelConfig
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from videogen import distributed
from videogen.diffusion.guidance import Velocity
from videogen.distributed import Degrees, Ranks
from videogen.errors import InputError
from videogen.models.attention import AttentionProcessor, Spans, attend, attend_spans
from videogen.models.interface import Pipeline
from videogen.models.wan.transformer import WanDiT
from videogen.runtime.token_sharding import SequenceSharding, ShardSpec, all_gather
from videogen.runtime.vae_parallel import shard_decoder

logger = logging.getLogger(__name__)

PATIENCE = timedelta(days=1)  # while rank 0 downloads or writes; torchrun watches the processes
CPU = torch.device("cpu")


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

    def local_rank_first(self, make: Callable[[], Any]) -> Any:
        """Return ``make()`` on every rank; local rank 0 of each machine runs it before the others."""
        if self.is_single:
            return make()
        made = make() if self.own.local_rank == 0 else None
        dist.barrier(self.cpu_group)
        return make() if self.own.local_rank else made

    @cached_property
    def cpu_group(self) -> dist.ProcessGroup:
        """Process group of all ranks for waiting on the CPU."""
        return dist.new_group(backend="gloo", timeout=PATIENCE)

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
    store, rank, size = next(dist.rendezvous("env://", timeout=PATIENCE))
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    # With device_id, NCCL connects here, so that its errors appear here.
    device = torch.device("cuda", own.local_rank) if gpus else None
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=size, timeout=PATIENCE, device_id=device
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
        pipeline.evaluate = CfgParallel(mesh["cfg"].get_group())
    if degrees.sequence > 1:
        config = ParallelConfig(
            context_parallel_config=ContextParallelConfig(
                ring_degree=degrees.ring, ulysses_degree=degrees.ulysses, mesh=mesh
            )
        )
        config.setup(dist.get_rank(), dist.get_world_size(), device, mesh=mesh)
        pipeline.sync_scalar = ScalarSync(config.context_parallel_config._flattened_mesh.get_group())
        for transformer in pipeline.transformers:
            shard_tokens(transformer, config)
    if isinstance(pipeline.vae, AutoencoderKLWan):
        shard_decoder(pipeline.vae, mesh._flatten("all").get_group())


@lru_cache  # process groups are limited, and a job may load many models
def mesh_of(degrees: Degrees, kind: str) -> DeviceMesh:
    """Return the device mesh with the dimensions cfg, ring and ulysses."""
    shape = (degrees.cfg, degrees.ring, degrees.ulysses)
    return init_device_mesh(kind, shape, mesh_dim_names=("cfg", "ring", "ulysses"))


class ScalarSync:
    """Broadcast of a number from the first rank of a sequence group.

    Ranks may round differently; this way all of them take the same branch.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group

    def __call__(self, number: float) -> float:
        box = torch.tensor([number], dtype=torch.float64)
        dist.broadcast(box, group=self.group, group_src=0)
        return box.item()


class CfgParallel:
    """CFG parallel: guidance branches are dealt out to rank groups in order and evaluated side by side."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group

    def __call__(self, branches: Sequence[str], velocity: Velocity) -> Sequence[Tensor]:
        """Evaluate all branches; same result as ``guidance.evaluate_sequentially``."""
        groups, own = dist.get_world_size(self.group), dist.get_rank(self.group)
        if len(branches) == 1:
            return [velocity(branches[0]).float()]
        velocities = [velocity(branch).float() for branch in branches[own::groups]]
        assert velocities, "more groups than branches"
        velocities += [torch.zeros_like(velocities[0])] * (-(-len(branches) // groups) - len(velocities))
        gathered = all_gather(torch.stack(velocities), self.group)
        return [gathered[index % groups, index // groups] for index in range(len(branches))]


class Exchange:
    """Self-attention over a sequence sharded over ranks; one instance serves all layers of a transformer."""

    def __init__(self, config: ParallelConfig) -> None:
        self.config = config
        self.sharding = SequenceSharding(())  # of the current forward

    @property
    def cp(self) -> ContextParallelConfig:
        """Context parallel config of diffusers."""
        return self.config.context_parallel_config

    @property
    def group(self) -> dist.ProcessGroup:
        """Process group of the ranks that share a sequence."""
        return self.cp._flattened_mesh.get_group()

    @property
    def ranks(self) -> int:
        """Number of ranks that share a sequence."""
        return self.cp.ring_degree * self.cp.ulysses_degree

    @property
    def rank(self) -> int:
        """Index of this rank among them."""
        return self.cp._flattened_mesh.get_local_rank()

    @torch.compiler.disable
    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, backend: Any, spans: Spans | None
    ) -> Tensor:
        """Attend from local tokens [B, L/ranks, N, K] to all ranks' tokens (or those of ``spans``)."""
        forward = self._ring(backend) if self.cp.ring_degree > 1 else self._ulysses(backend, spans)
        return kernels._templated_context_parallel_attention(
            query, key, value, forward_op=forward, backward_op=None, _parallel_config=self.config
        )

    def _ulysses(self, backend: Any, spans: Spans | None) -> Callable[..., Tensor]:
        """Return a forward over all tokens and some of the heads."""
        kernel = partial(attend, backend=backend)

        def forward(_context: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
            order = self.sharding.sequence_order(0, self.ranks, query.device)
            key, value = key.index_select(1, order), value.index_select(1, order)
            if spans is None:
                return kernel(query, key, value)
            out = attend_spans(kernel, query.index_select(1, order), key, value, spans)
            return out.index_select(1, self.sharding.shard_order(self.ranks, query.device))

        return forward

    def _ring(self, backend: Any) -> Callable[..., tuple[Tensor, Tensor]]:
        """Return a forward over one rank's tokens per hop, starting with the local ones."""
        hops = itertools.count(self.cp._ring_local_rank)
        kernel = ring_kernel(backend)

        def forward(
            _context: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
        ) -> tuple[Tensor, Tensor]:
            first = next(hops) % self.cp.ring_degree * self.cp.ulysses_degree
            order = self.sharding.sequence_order(first, first + self.cp.ulysses_degree, key.device)
            return kernel(query, key.index_select(1, order), value.index_select(1, order))

        return forward


def ring_kernel(backend: Any) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return a kernel that also returns the log-sum-exp of the attention weights [B, L, N].

    Raises:
        KeyError: there is none of this name; ``RING_KERNELS`` lists them.
    """
    forward = RING_KERNELS[str(getattr(backend, "value", backend) or "native")]

    def kernel(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return forward(None, query, key, value, return_lse=True, _save_ctx=False)

    return kernel


def _cpu_attention(
    _context: Any, query: Tensor, key: Tensor, value: Tensor, **_: Any
) -> tuple[Tensor, Tensor]:
    """Run torch's CPU kernel with the signature of diffusers' forward ops."""
    heads = (x.transpose(1, 2) for x in (query, key, value))
    out, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*heads)
    return out.transpose(1, 2), weight.transpose(1, 2)


RING_KERNELS: dict[str, Callable[..., Any]] = {
    "native": _cpu_attention,
    "_native_cudnn": kernels._cudnn_attention_forward_op,
    "_native_flash": kernels._native_flash_attention_forward_op,
    "flash": kernels._flash_attention_forward_op,
    "sage": kernels._sage_attention_forward_op,
}


def works_in_ring(backend: str, device: torch.device) -> bool:
    """Return True if a kernel (diffusers' name) supports ring attention."""
    return backend in RING_KERNELS and (backend != "native" or device.type == "cpu")


def shard_tokens(transformer: nn.Module, config: ParallelConfig) -> None:
    """Shard a transformer's tokens over ranks before its blocks and unshard them after its head."""
    exchange = Exchange(config)
    for module in transformer.modules():
        if isinstance(processor := getattr(module, "processor", None), AttentionProcessor):
            processor.exchange = exchange
    shard = next(shard for network, shard in SHARD_FUNCTIONS.items() if isinstance(transformer, network))
    shard(transformer, exchange)


def _shard_wan(transformer: Any, exchange: Exchange) -> None:
    """Shard tokens [B, F, S, D] along S; see ``WanBlock.forward``."""

    def enter(_module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        tokens, text, temb, rotary, *others = arguments
        if others[-1] is not None:
            raise ValueError("two speakers are not implemented on several ranks")
        frames, spec = tokens.shape[1], ShardSpec(tokens.shape[2], exchange.ranks)
        exchange.sharding = SequenceSharding(((frames, spec),))
        rotary = spec.shard(rotary.unflatten(0, (frames, -1)), 1, exchange.rank).flatten(0, 1)
        return spec.shard(tokens, 2, exchange.rank).contiguous(), text, temb, rotary, *others

    def leave(_module: nn.Module, _arguments: Any, output: Tensor) -> Tensor:
        ((_, spec),) = exchange.sharding.sections
        return spec.unshard(output, 2, exchange.group)

    transformer.blocks.register_forward_pre_hook(enter)
    transformer.proj_out.register_forward_hook(leave)


def _shard_hunyuan(transformer: Any, exchange: Exchange) -> None:
    """Shard image tokens [B, F * S, D] along S and text tokens [B, T, D] along T.

    Each rank holds a shard of both; attention has no mask and treats them as one sequence.
    """

    def specs() -> tuple[int, ShardSpec, ShardSpec]:
        (frames, image), (_, text) = exchange.sharding.sections
        return frames, image, text

    def begin(_module: nn.Module, _arguments: Any, named: dict[str, Any]) -> None:
        _, _, frames, height, width = named["hidden_states"].shape
        patch = transformer.config.patch_size
        image = ShardSpec(height // patch * (width // patch), exchange.ranks)
        text = ShardSpec(named["encoder_hidden_states"].shape[1], exchange.ranks)
        exchange.sharding = SequenceSharding(((frames, image), (1, text)))

    def positions(_module: nn.Module, _arguments: Any, rotary: Tensor) -> Tensor:
        frames, image, _ = specs()
        return image.shard(rotary.unflatten(0, (frames, -1)), 1, exchange.rank).flatten(0, 1)

    def enter(_module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        tokens, rows, *others = arguments
        frames, image, text = specs()
        tokens = image.shard(tokens.unflatten(1, (frames, -1)), 2, exchange.rank).flatten(1, 2)
        return tokens, text.shard(rows, 1, exchange.rank), *others

    def count(_module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        *others, _first_frames_tokens = arguments
        return *others, specs()[1].shard_length

    def leave(_module: nn.Module, _arguments: Any, output: Tensor) -> Tensor:
        frames, image, _ = specs()
        return image.unshard(output.unflatten(1, (frames, -1)), 2, exchange.group).flatten(1, 2)

    transformer.register_forward_pre_hook(begin, with_kwargs=True)
    transformer.rope.register_forward_hook(positions)
    transformer.transformer_blocks[0].register_forward_pre_hook(enter)
    for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
        block.register_forward_pre_hook(count)
    transformer.proj_out.register_forward_hook(leave)


SHARD_FUNCTIONS: dict[type, Callable[[Any, Exchange], None]] = {
    WanDiT: _shard_wan,
    HunyuanVideoTransformer3DModel: _shard_hunyuan,
}
