"""What this machine has for a plan, before anything is loaded: RAM, disk, and how long it took before."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from videogen.checkpoints.model_features import parameters
from videogen.planning.local_devices import is_on_cpu
from videogen.planning.local_ram import available_ram
from videogen.planning.measured_rates import ExpectedTime, expected_time
from videogen.planning.memory_estimate import LIBRARIES
from videogen.planning.option_rules import may_be_added
from videogen.planning.plan import Outline
from videogen.results.formatting import format_bytes
from videogen.tasks.table import VARIANTS
from videogen.tasks.task_spec import TRANSFORMERS


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """Models that are yet to be fetched, for the video and for its prompt, and the disk that they go to.

    Args:
        size: bytes that are missing; None where that is not known.
        prompt_models: hub id -> bytes, of those that write the prompt; 0 where that is not known.
        free: bytes on the disk of ``folder``; None where it does not say.
    """

    size: int | None
    prompt_models: Mapping[str, int]
    folder: Path
    free: int | None

    @property
    def fits(self) -> bool:
        """Return whether the disk has room for it, as far as that is known."""
        return self.size is None or self.free is None or self.size <= self.free


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
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


def find_resources(plans: Sequence[Outline]) -> list[Resources]:
    """Return what this machine has for each plan."""
    free, found = available_ram(), []
    downloads: dict[tuple[str, ...], Download | None] = {}
    for plan in plans:
        wanted, on_cpu = tuple(_wanted(plan)), is_on_cpu(plan.options.device)
        if wanted not in downloads:
            downloads[wanted] = _download(plan)
        found.append(
            Resources(
                on_cpu=on_cpu,
                ram=plan.ram_bytes(on_cpu=on_cpu),
                ram_free=free,
                download=downloads[wanted],
                time=expected_time(plan),
            )
        )
    return found


def check_disk(plans: Sequence[Outline]) -> None:
    """Refuse downloads that are too large for the disk, of all plans together.

    Raises:
        CheckpointError: they are.
    """
    wanted = {label: size for plan in plans for label, size in _wanted(plan).items()}
    if wanted:
        from videogen.checkpoints import hub  # noqa: PLC0415 - 0.2 s, and only for models of the hub

        sizes = {label.split()[1]: size for label, size in wanted.items()}
        hub.check_space(", ".join(wanted), sizes)


def _wanted(plan: Outline) -> dict[str, int]:
    """Return flag and hub id -> bytes (0: not known) of the models that are not here."""
    model, wanted = plan.checkpoint, {}
    if model.folder is None and not model.tiny:
        size = sum(size for name, size in model.sizes.items() if name not in model.replaced)
        wanted[f"--model_id {model.name}"] = size
    writers = [writer for writer in plan.prompt_writers.values() if writer.folder is None]
    return wanted | {writer.label: writer.download for writer in writers}


def _download(plan: Outline) -> Download | None:
    if not (wanted := _wanted(plan)):
        return None
    from videogen.checkpoints import hub  # noqa: PLC0415 - 0.2 s, and only for models of the hub

    sizes = {label.split()[1]: size for label, size in wanted.items()}
    missing = sum(max(0, size - hub.downloaded(name)) for name, size in sizes.items())
    return Download(
        size=missing if all(sizes.values()) else None,
        prompt_models={name: size for name, size in sizes.items() if name != plan.checkpoint.name},
        folder=hub.cache_folder(),
        free=hub.free_space(),
    )


def ram_warning(plan: Outline, *, on_cpu: bool) -> str | None:
    """Return what to say where RAM is short for loading, with what to try; None where it is not."""
    needed, free = plan.ram_bytes(on_cpu=on_cpu) - LIBRARIES, available_ram()  # they are loaded already
    if free is None or needed <= free:
        return None
    what = f"this takes about {format_bytes(needed)} of RAM, and {format_bytes(free)} are free"
    return f"{what}; try {ram_suggestions(plan, on_cpu=on_cpu)}"


def ram_suggestions(plan: Outline, *, on_cpu: bool) -> str:
    """Return the options that would make a plan fit in less RAM."""
    return ", ".join(_smaller(plan, on_cpu=on_cpu))


def _smaller(plan: Outline, *, on_cpu: bool) -> Iterator[str]:
    options, memory, needed = plan.options, plan.facts.memory, plan.ram_bytes(on_cpu=on_cpu)
    if options.dtype == "float32":
        yield "--dtype bfloat16"
    ways = (
        ("--low_vram", may_be_added("low_vram", options), memory.ram(on_cpu=on_cpu, low_vram=True)),
        ("without --offload", options.offload, memory.ram(on_cpu=on_cpu)),
    )
    yield from (
        f"{words} (about {format_bytes(size)})"
        for words, possible, size in ways
        if possible and size < needed
    )
    if not (options.transformer or plan.checkpoint.tiny):
        yield "a float8 or GGUF file with --transformer"
    if on_cpu and (smallest := _smallest_model(plan)):
        yield f"the smaller model --model_id {smallest}"
    else:
        yield "closing other programs"


def _smallest_model(plan: Outline) -> str | None:
    """Return the hub id of the task's smallest published model; None if the plan's own is no larger."""

    def weights(parameters: Mapping[str, int]) -> int:
        return sum(parameters.get(part, 0) for part in TRANSFORMERS)

    models = (model for row in VARIANTS[plan.task.name] for model in row.models())
    smallest = min(models, key=lambda model: weights(model.published().parameters))
    own = weights(parameters(plan.checkpoint, plan.task))
    return smallest.names[0] if weights(smallest.published().parameters) < own else None
