"""What this machine has for a plan, before anything is loaded: RAM, disk, and how long it took before."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from videogen.planning.local_devices import available_ram, is_on_cpu
from videogen.planning.measured_rates import ExpectedTime, expected_time
from videogen.planning.memory_estimate import LIBRARIES
from videogen.planning.plan import Outline
from videogen.results.run_summary import amount


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """A model that is yet to be fetched: bytes (None: not known), and the disk that they go to."""

    size: int | None
    folder: Path
    free: int | None

    @property
    def fits(self) -> bool:
        """Return whether nothing speaks against it."""
        return self.size is None or self.free is None or self.size <= self.free


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What this machine has for a plan; bytes are None where they are not known.

    Args:
        on_cpu: the video is made on the CPU.
        ram: bytes of RAM that are needed.
        ram_free: that a process can still take.
        time: what it will take, if that was measured.
    """

    on_cpu: bool
    ram: int
    ram_free: int | None
    download: Download | None
    time: ExpectedTime | None


def look_around(plans: Sequence[Outline]) -> list[Surroundings]:
    """Return what this machine has for each plan."""
    free, found = available_ram(), []
    downloads: dict[str, Download | None] = {}
    for plan in plans:
        name, on_cpu = plan.checkpoint.name, is_on_cpu(plan.options.device)
        if name not in downloads:
            downloads[name] = _download(plan)
        found.append(
            Surroundings(
                on_cpu=on_cpu,
                ram=plan.ram_bytes(on_cpu=on_cpu),
                ram_free=free,
                download=downloads[name],
                time=expected_time(plan),
            )
        )
    return found


def check_disk(plans: Sequence[Outline]) -> None:
    """Refuse downloads that are too large for the disk, of all plans together.

    Raises:
        CheckpointError: they are.
    """
    sizes = {plan.checkpoint.name: size for plan in plans if (size := _size(plan)) is not None}
    if sizes:
        from videogen.checkpoints import hub  # noqa: PLC0415 - 0.2 s, and only for models of the hub

        hub.check_space(sizes)


def _size(plan: Outline) -> int | None:
    """Return the bytes of a model that is not here, 0 where they are not known; None of one that is."""
    model = plan.checkpoint
    if model.folder is not None or model.tiny:
        return None
    return sum(size for name, size in model.sizes.items() if name not in model.replaced)


def _download(plan: Outline) -> Download | None:
    if (size := _size(plan)) is None:
        return None
    from videogen.checkpoints import hub  # noqa: PLC0415 - 0.2 s, and only for models of the hub

    left = max(0, size - hub.downloaded(plan.checkpoint.name)) if size else None
    return Download(size=left, folder=hub.cache_folder(), free=hub.free_space())


def ram_warning(plan: Outline, *, on_cpu: bool) -> str | None:
    """Return what to say where RAM is short for loading, with what to try; None where it is not."""
    needed, free = plan.ram_bytes(on_cpu=on_cpu) - LIBRARIES, available_ram()  # they are loaded already
    if free is None or needed <= free:
        return None
    what = f"this takes about {amount(needed)} of RAM, and {amount(free)} are free"
    return f"{what}; try {less_ram(plan, on_cpu=on_cpu)}"


def less_ram(plan: Outline, *, on_cpu: bool) -> str:
    """Return what takes less RAM than a plan does."""
    return ", ".join(_smaller(plan, on_cpu=on_cpu))


def _smaller(plan: Outline, *, on_cpu: bool) -> Iterator[str]:
    options, memory, needed = plan.options, plan.facts.memory, plan.ram_bytes(on_cpu=on_cpu)
    if options.dtype == "float32":
        yield "--dtype bfloat16"
    modes: Mapping[str, dict[str, bool]] = {"--low_vram": {"low_vram": True}, "without --offload": {}}
    for words, mode in modes.items():
        possible = options.offload if not mode else not (options.low_vram or options.quantize)
        if possible and (size := memory.ram(on_cpu=on_cpu, **mode)) < needed:
            yield f"{words} (about {amount(size)})"
    if not options.transformer:
        yield "a float8 or GGUF file with --transformer"
    yield "a smaller model with --model_id" if on_cpu else "closing other programs"
