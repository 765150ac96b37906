"""Which rank this process is, who reports an error, and which tokens a rank has; threads are the ranks."""

import sys
from itertools import accumulate
from threading import Thread

import pytest
import torch
import torch.distributed as dist

from videogen import distributed
from videogen.distributed import Degrees, Ranks, get_ranks
from videogen.runtime.token_sharding import SequenceSharding, ShardSpec, all_gather

CPU = torch.device("cpu")
LENGTHS = [(12, 3), (13, 3), (14, 3), (2, 4), (5, 1), (4, 4)]


@pytest.fixture
def torchrun(monkeypatch):
    """Set the variables of torchrun."""

    def started(**values):
        for name in distributed.VARIABLES.values():
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        get_ranks.cache_clear()
        return get_ranks()

    yield started
    get_ranks.cache_clear()


@pytest.fixture
def communicator(monkeypatch):
    class Reporter:
        first = True

        def is_first_failure(self):
            return self.first

    monkeypatch.setattr(distributed, "communicator", Reporter())
    return distributed.communicator


FOUR = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}


def test_ranks_of_torchrun(torchrun):
    assert torchrun(**FOUR) == Ranks(rank=3, size=8, local_rank=1, local_size=2, launched=True)
    assert torchrun(**FOUR | {"RANK": "0"}).is_main_process
    assert not torchrun(**FOUR).is_main_process


@pytest.mark.parametrize("broken", [*({"drop": name} for name in FOUR), {"RANK": "x"}, {"RANK": ""}])
def test_without_torchrun_there_is_one(torchrun, broken):
    values = {name: value for name, value in FOUR.items() if name != broken.get("drop")}
    values |= {name: value for name, value in broken.items() if name != "drop"}
    ranks = torchrun(**values)
    assert (ranks.rank, ranks.size, ranks.local_rank, ranks.local_size) == (0, 1, 0, 1)
    assert ranks.launched is False
    assert ranks.is_main_process


def test_degrees():
    assert (Degrees().sequence, Degrees().size) == (1, 1)
    degrees = Degrees(cfg=2, ring=3, ulysses=5)
    assert (degrees.sequence, degrees.size) == (15, 30)


@pytest.mark.parametrize(
    "said",
    ["[gloo] timeout", "NCCL error", "nccl", "Connection reset by peer", "connection refused", "Broken pipe"],
)
def test_the_loss_of_another_rank(communicator, said):
    assert distributed.is_peer_loss(RuntimeError(said)) is True
    assert distributed.is_peer_loss(OSError(said)) is False


def test_other_errors_are_no_loss(communicator, monkeypatch):
    assert distributed.is_peer_loss(RuntimeError("Connection of two layers")) is False
    monkeypatch.setattr(distributed, "communicator", None)
    assert distributed.is_peer_loss(RuntimeError("NCCL error")) is False


def test_one_rank_reports(communicator, monkeypatch, torchrun):
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    assert distributed.should_report_error() is True
    communicator.first = False
    assert distributed.should_report_error() is False
    monkeypatch.setattr(distributed, "communicator", None)
    torchrun()
    assert distributed.should_report_error() is True
    assert not slept
    torchrun(**FOUR)
    assert distributed.should_report_error() is True
    assert slept == [10]


def test_ranks_end_at_once(communicator, monkeypatch, torchrun):
    class Stream:
        def __init__(self, name):
            self.name = name

        def flush(self):
            did.append(self.name)

    did = []
    monkeypatch.setattr("os._exit", did.append)
    torchrun(**FOUR | {"WORLD_SIZE": "2"})
    with monkeypatch.context() as streams:
        streams.setattr(sys, "stdout", Stream("out"))
        streams.setattr(sys, "stderr", Stream("err"))
        distributed.exit_after_failure(4)
    assert did == ["out", "err", 4]
    torchrun(**FOUR | {"WORLD_SIZE": "1"})
    distributed.exit_after_failure(4)
    torchrun(**FOUR)
    monkeypatch.setattr(distributed, "communicator", None)
    distributed.exit_after_failure(4)
    assert len(did) == 3


def pieces(length, ranks):
    """As even as possible, longer ones first."""
    sizes = [length // ranks + (rank < length % ranks) for rank in range(ranks)]
    return [list(range(end - size, end)) for size, end in zip(sizes, accumulate(sizes), strict=True)]


@pytest.mark.parametrize(("length", "ranks"), LENGTHS)
def test_shards(length, ranks):
    spec, x = ShardSpec(length, ranks), 10 * torch.arange(length).repeat(2, 1)
    longest = max(map(len, pieces(length, ranks)))
    assert spec.shard_length == longest
    for rank, own in enumerate(pieces(length, ranks)):
        assert list(spec.local_range(rank)) == own
        if own:
            padded = own + own[-1:] * (longest - len(own))
            assert spec.shard(x, 1, rank).tolist() == [[10 * index for index in padded]] * 2


def test_even_shards_are_views():
    x = torch.arange(12)
    assert ShardSpec(12, 3).shard(x, 0, 1).untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


def on_ranks(count, do):
    """Call ``do`` with rank and group in so many threads; return what they return."""
    store, made = dist.HashStore(), {}

    def run(rank):
        group, kind = dist.ProcessGroup(store, rank, count), dist.ProcessGroup.BackendType.GLOO
        group._register_backend(CPU, kind, dist.ProcessGroupGloo(store, rank, count))
        made[rank] = do(rank, group)

    threads = [Thread(target=run, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [made[rank] for rank in range(count)]


def test_gathering_stacks_ranks():
    for made in on_ranks(3, lambda rank, group: all_gather(torch.full((2, 1), rank), group)):
        assert made.tolist() == [[[0], [0]], [[1], [1]], [[2], [2]]]


@pytest.mark.parametrize(("length", "ranks"), [(12, 3), (13, 3), (5, 2), (2, 3)])
def test_shards_are_put_together_again(length, ranks):
    spec, x = ShardSpec(length, ranks), torch.arange(2 * length).view(2, length)
    for whole in on_ranks(ranks, lambda rank, group: spec.unshard(spec.shard(x, 1, rank), 1, group)):
        assert torch.equal(whole, x)


SECTIONS = ((2, ShardSpec(5, 3)), (1, ShardSpec(4, 3)), (3, ShardSpec(6, 3)))


def ids_of(rank):
    ids, before = [], 0
    for groups, spec in SECTIONS:
        own = pieces(spec.length, 3)[rank]
        for group in range(groups):
            padding = [-1] * (max(map(len, pieces(spec.length, 3))) - len(own))
            ids += [before + group * spec.length + index for index in own] + padding
        before += groups * spec.length
    return ids


@pytest.mark.parametrize(("first", "end"), [(0, 3), (1, 3), (2, 3), (0, 1)])
def test_tokens_of_ranks(first, end):
    sharding = SequenceSharding(SECTIONS)
    ids = [token for rank in range(first, end) for token in ids_of(rank)]
    assert sharding.token_ids(first, end).tolist() == ids
    order = sharding.sequence_order(first, end, CPU)
    assert torch.tensor(ids)[order].tolist() == sorted(token for token in ids if token >= 0)


def test_every_token_goes_back_to_its_shards():
    sharding = SequenceSharding(SECTIONS)
    ids = [max(token, 0) for rank in range(3) for token in ids_of(rank)]
    assert sharding.shard_order(3, CPU).tolist() == ids
