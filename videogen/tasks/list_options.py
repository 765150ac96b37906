"""The options of lists of videos: which list, which part of it, in which order, and what is kept of it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from videogen.tasks import option_types as types
from videogen.tasks.option import Needs, row, switch

A_LIST = Needs("jobs", "is about a list of videos")
A_CLUSTER = Needs("ray", "is about a Ray cluster")
LOCAL = "local"  # a Ray of this run's own


@dataclass(frozen=True, slots=True)
class Shard:
    """Share ``index`` (from 0) of ``count`` of a list: every ``count``-th video."""

    index: int
    count: int

    def holds(self, number: int) -> bool:
        """Return whether the video with this number (from 1) belongs to the share."""
        return (number - 1) % self.count == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


WHOLE = Shard(0, 1)


def shard(value: str) -> Shard:
    """Parse I/N, or 'auto': the place of this job in a SLURM array."""
    if value == "auto":
        return of_array(os.environ)
    index, slash, count = value.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal()):
        raise types.Reject("must be I/N, or auto in a SLURM array", "for example 0/4")
    found = Shard(int(index), int(count))
    if not found.count:
        raise types.Reject("must be of at least one share", "nearest 0/1")
    if found.index >= found.count:
        allowed = f"shares of {found.count} are numbered from 0 to {found.count - 1}"
        raise types.Reject(allowed, f"nearest {found.count - 1}/{found.count}")
    return found


def of_array(environment: Mapping[str, str]) -> Shard:
    """Return the share of a job of a SLURM array, whatever number the array begins with."""
    names = [f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "COUNT")]
    try:
        number, first, last, count = (int(environment[name]) for name in names)
    except (KeyError, ValueError):
        raise types.Reject("this is no job of a SLURM array", "give I/N, for example 0/4") from None
    step = int(environment.get("SLURM_ARRAY_TASK_STEP") or 1)
    if first + (count - 1) * step != last:
        raise types.Reject("the SLURM array has gaps", "give I/N, for example %a/8") from None
    return Shard((number - first) // step, count)


def ray_address(value: str) -> str:
    """Parse where a Ray cluster is; the flag alone means what RAY_ADDRESS says, else this machine."""
    address = value.strip() or os.environ.get("RAY_ADDRESS") or LOCAL
    if "://" in address:
        fix = "start on a machine of the cluster, with HOST:PORT or auto"
        raise types.Reject("a Ray Client cannot be used", fix)
    _, colon, port = address.rpartition(":")
    if address not in (LOCAL, "auto") and not (colon and port.isdecimal()):
        raise types.Reject("must be HOST:PORT, auto or local", f"nearest {address.rstrip(':')}:6379")
    return address


# fmt: off
@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Lists:
    """Several videos in one run, or in several runs that share them."""

    jobs: str | None = row(types.path,
        "a list of videos: prompts, a table (CSV, TSV), JSON or YAML of flags; - reads lines as they come",
        metavar="FILE|-", about_run=True, set_by_chain=True)
    keep_order: bool = switch("make the list in its own order, even if models are then loaded several times",
        about_run=True, needs=A_LIST, set_by_chain=True)
    shard: Shard | None = row(shard,
        "make only share I (from 0) of N of the list; auto: this job's share in a SLURM array",
        metavar="I/N|auto", about_run=True, needs=A_LIST, set_by_chain=True)
    retry: str | None = row(types.one_of("offload"),
        "make a video that ran out of GPU memory once more, with less of it; the result is the same",
        metavar="HOW", about_run=True, set_by_chain=True, excludes=("caption_only",))
    bundle: str | None = row(types.file_path,
        "pack results, inputs and job lines, so that --from_metadata FILE.zip makes them again elsewhere",
        metavar="FILE.zip", about_run=True, set_by_chain=True, excludes=("shard", "caption_only"))
    ray: str | None = row(ray_address,
        "make videos on all machines of a Ray cluster; alone: the one of RAY_ADDRESS, or all GPUs here",
        metavar="[HOST:PORT|auto|local]", bare="", about_run=True, set_by_chain=True,
        excludes=("caption_only",))
    gpus_per_job: int | None = row(types.whole(0),
        "GPUs of each video on the cluster (1 unless it has none); several with --use_usp",
        metavar="N", about_run=True, needs=A_CLUSTER, set_by_chain=True)
    caption_batch: int = row(types.whole(1),
        "videos that a model of --caption_only describes together; halved where they do not fit",
        metavar="N", about_run=True, default=8, set_by_chain=True,
        needs=Needs("caption_only", "is about captions of a list"))
    fetch: bool = switch("send results to this machine, where the cluster shares no folder with it",
        about_run=True, needs=A_CLUSTER, set_by_chain=True)
# fmt: on
