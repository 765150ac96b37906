"""One video of a published model on the simulated card, from the options to the frames.

The project's own ``load.set_up`` and ``session.generate`` make it. What is replaced: the weight files
(``models.py``), and what writes files, which takes frames and latents and forgets them.
"""

import functools
import logging
import tempfile
import wave
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tests.simulated.models import fake_buffers, replace_files
from tests.simulated.patches import Patches
from tests.simulated.sim import Sim, simulate
from videogen import errors, files
from videogen.engine import load
from videogen.engine import session as run
from videogen.media import video_writer
from videogen.models import device_copies
from videogen.models.hunyuan import transformer as hunyuan
from videogen.models.wan import vae
from videogen.models.wan.transformer import WanBlock, WanDiT
from videogen.pipelines.base import VideoPipeline
from videogen.planning import measured_rates
from videogen.planning.plan import Outline
from videogen.planning.request import Item, make_plans
from videogen.results import publishing, resume_store
from videogen.results.output_paths import OverwritePolicy
from videogen.runtime.parallel import SINGLE_PROCESS, Communicator
from videogen.tasks.options import OPTIONS

SIZE = (1280, 720)  # of the pictures and videos that are given
SECONDS = 5  # of the sound
FIRST, LAST = 4, 2  # blocks that are computed where others are left out
ROOM = 1.05  # of the estimate: what a card has that a job is said to fit on
MODES: dict[str, dict[str, Any]] = {"plain": {}, "offload": {"offload": True}, "low_vram": {"low_vram": True}}


class EnoughError(Exception):
    """As many frames or forwards were made as are wanted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What came of a simulated run.

    Args:
        forwards: how many there were of the transformers.
        frames: video frames that were decoded.
    """

    sim: Sim
    plan: Outline
    pipeline: Any
    forwards: int
    frames: int

    @property
    def peak(self) -> int:
        return self.sim.ledger.peak["cuda"]

    @property
    def activations(self) -> int:
        """What the last forward takes besides the weights of the transformers and the VAE."""
        modules = (*self.pipeline.transformers, self.pipeline.vae)
        weights = sum(tensor.nbytes for module in modules for tensor in module.state_dict().values())
        steps = {
            key: peak for key, peak in self.sim.ledger.step_peaks.items() if key[::2] == ("denoise", "cuda")
        }
        return steps[max(steps)] - weights

    @property
    def estimate(self) -> int:
        """What ``--dry_run`` says of the memory in this mode."""
        return self.plan.memory_bytes[self.plan.memory_mode]


@contextmanager
def planned(task: str, **options: Any) -> Iterator[Outline]:
    """Give the plan of a task with options as on the command line; inputs that it needs are drawn."""
    with tempfile.TemporaryDirectory(prefix="videogen-sim-") as place:
        folder = Path(place)
        given = {"task_type": task, "prompt": "a swan on a lake", "seed": 1, "output": folder / "video.npy"}
        device = "cuda" if options.get("use_usp") else "cuda:0"
        values = {"device": device, **given, **_inputs(task, folder), **options}
        typed = {
            name: OPTIONS[name].value(value) if name in OPTIONS else value for name, value in values.items()
        }
        (plan,) = make_plans([Item(values=typed)], OverwritePolicy(), folder)
        yield plan


def run_job(
    sim: Sim,
    plan: Outline,
    *,
    frames: int | None = None,
    forwards: int | None = None,
    communicator: Communicator = SINGLE_PROCESS,
) -> Job:
    """Load a plan's model and make its video.

    Args:
        frames: stop after decoding so many video frames; later ones take the same as the third latent frame.
            Where kernels are not counted, only the first two tiles are decoded, up to there (of HunyuanVideo
            the first one, whole), Wan's middle blocks return their input, and weights are copied without
            their buffers.
        forwards: stop after so many forwards.
        communicator: the ranks that make it together.
    """
    ledger = sim.ledger
    tiled = plan.tiled or plan.options.low_vram or plan.shape.grid.frames_at_once is not None
    if ledger.counting and tiled:  # a tile goes through many frames, or all, before the first one is written
        frames = None
    counted = Counted(frames, forwards)
    with Patches() as patches, quiet():
        replace_files(patches, sim.host_tensor, functools.partial(fake_buffers, sim))
        counted.take_the_place_of_files(patches)
        _watch_stages(patches, sim, counted)
        middle: set[int] = set()
        if frames is not None and not ledger.counting:
            _leave_out_repetitions(patches, frames, middle)
        session = run.Session(communicator=communicator)
        with ledger.phase("load"):
            pipeline = load.set_up(plan)
        for transformer in pipeline.transformers:
            if isinstance(transformer, WanDiT):
                middle.update(map(id, transformer.blocks[FIRST:-LAST]))
        session.pipeline, session.key = pipeline, run.model_key(plan)
        counted.watch(pipeline)
        for transformer in pipeline.transformers:
            transformer.register_forward_pre_hook(lambda *_: ledger.begin_step())
        with ledger.phase("other"), suppress(EnoughError):
            run.generate(plan, session)
    return Job(sim=sim, plan=plan, pipeline=pipeline, forwards=counted.forwards, frames=counted.frames)


def simulate_job(
    sim: Sim, task: str, *, frames: int | None = None, forwards: int | None = None, **options: Any
) -> Job:
    """Plan and run in one call."""
    with planned(task, **options) as plan:
        return run_job(sim, plan, frames=frames, forwards=forwards)


def run_with_little_room(
    task: str,
    gpu: str = "H200",
    *,
    frames: int | None = None,
    count: bool = False,
    others: Sequence[float] = (),
    **options: Any,
) -> tuple[Job, bool]:
    """Run a job on a card with 5 % more memory than ``--dry_run`` says it takes.

    Where there is more room, the next component comes early, and the peak is not what the job needs.

    Args:
        count: kernels too, not only memory.
        others: larger cards that are tried when it does not fit, in shares of the estimate; at last one with
            room for anything.

    Returns:
        the job, and whether it fitted at once.
    """
    with planned(task, **options) as plan:
        said = plan.memory_bytes[plan.memory_mode]
        for share in (ROOM, *others):
            with suppress(torch.OutOfMemoryError, errors.OutOfMemoryError):
                return _run_within(int(said * share), gpu, plan, frames, count=count), share == ROOM
        return _run_within(10**12, gpu, plan, frames, count=count), False


def _run_within(capacity: int, gpu: str, plan: Outline, frames: int | None, *, count: bool) -> Job:
    with simulate(gpu, capacity=capacity) as sim:
        sim.ledger.counting = count
        return run_job(sim, plan, frames=frames)


@contextmanager
def quiet() -> Iterator[None]:
    """Let nothing below an error be logged."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)


class Counted:
    """Counts forwards and frames, and ends a run by an ``EnoughError`` when there are as many as wanted.

    Its writers forget what is written; the first one is the video's.
    """

    def __init__(self, most_frames: int | None, most_forwards: int | None = None) -> None:
        self.most_frames, self.most_forwards = most_frames, most_forwards
        self.frames = self.pieces = self.forwards = 0
        self.target: Path | None = None
        self.temporary = None

    def take_the_place_of_files(self, patches: Patches) -> None:
        """Let everything that would be written come here."""
        patches.set(video_writer, "open_writer", self.open_writer)
        patches.set(publishing, "publish", lambda outputs, *_: outputs)
        patches.set(resume_store, "digest", lambda *_: {})
        patches.set(files, "write_tensors", lambda *_, **__: None)
        patches.set(resume_store, "save_tensors", lambda *_, **__: None)
        patches.set(measured_rates, "keep", lambda *_, **__: None)  # no real card was as fast

    def watch(self, pipeline: Any) -> None:
        """Count the forwards of a pipeline's transformers."""

        def end(*_: Any) -> None:
            self.forwards += 1
            if self.forwards == self.most_forwards:
                raise EnoughError

        for transformer in pipeline.transformers:
            transformer.register_forward_hook(end)

    @contextmanager
    def open_writer(self, target: Path, *_: Any, **__: Any) -> Iterator[Any]:
        if self.target is not None:
            yield _Forgetful(None)
            return
        self.target = target
        yield self

    def write(self, frames: np.ndarray) -> None:
        self.frames += len(frames)
        self.pieces += 1
        if self.most_frames is not None and self.frames >= self.most_frames:
            raise EnoughError

    def finish(self) -> None: ...

    def publish(self, **_: Any) -> Path | None:
        return self.target


class _Forgetful(Counted):
    """A writer of frames that are not counted: of a finished part of a long video."""


def _leave_out_repetitions(patches: Patches, frames: int, middle: set[int]) -> None:
    """Do without most of the work that takes no more memory than what came before it.

    ``middle``: blocks of Wan, by ``id``, that are not computed; what is hooked onto them happens.
    """
    compute = WanBlock.forward

    @functools.wraps(compute)
    def forward(block: WanBlock, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return hidden_states if id(block) in middle else compute(block, hidden_states, *args, **kwargs)

    tiles = {module: module._decode_tiles for module in (vae, hunyuan)}

    def first_two_tiles(model: Any, latents: Tensor) -> Tensor:
        scale = model.spatial_compression_ratio
        height = model.tile_sample_min_height // scale
        width = (model.tile_sample_min_width + model.tile_sample_stride_width) // scale
        return _filled(tiles[vae](model, latents[:, :, : frames // 4 + 1, :height, :width]), latents, model)

    def first_tile(model: Any, latents: Tensor) -> Tensor:
        size = model.tile_sample_min_height // model.spatial_compression_ratio
        return _filled(tiles[hunyuan](model, latents[..., :size, :size]), latents, model)

    patches.set(vae, "_decode_tiles", first_two_tiles)
    patches.set(hunyuan, "_decode_tiles", first_tile)
    patches.set(device_copies, "staged", _copied_at_once)
    patches.set(WanBlock, "forward", forward)


def _filled(video: Tensor, latents: Tensor, model: Any) -> Tensor:
    """Return a video of the size that all of the latents have."""
    *_, frames, height, width = latents.shape
    scale = model.spatial_compression_ratio
    return video.new_empty(*video.shape[:2], 4 * (frames - 1) + 1, height * scale, width * scale)


def _copied_at_once(sources: Sequence[Tensor], targets: Sequence[Tensor], _: object) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)


def _watch_stages(patches: Patches, sim: Sim, counted: Counted) -> None:
    """Let the stages that pipelines time be phases of the ledger too; decoding is counted piece by piece."""
    original = VideoPipeline.measured

    @contextmanager
    def stage(pipeline: VideoPipeline, name: str) -> Iterator[None]:
        with sim.ledger.phase(name), original(pipeline, name):
            sim.ledger.step = counted.pieces if name == "decode" else 0
            yield

    patches.set(VideoPipeline, "measured", stage)


def _inputs(task: str, folder: Path) -> Mapping[str, Any]:
    """Return files for the inputs that a task must have."""
    image, sound, clip = folder / "image.png", folder / "sound.wav", folder / "clip.mp4"
    if task == "reference_to_video":
        Image.new("RGB", SIZE, "gray").save(image)
        return {"ref_imgs": [str(image)] * 3}
    if task in ("image_to_video", "talking_avatar", "hunyuan_image_to_video"):
        Image.new("RGB", SIZE, "gray").save(image)
        if task != "talking_avatar":
            return {"input_image": str(image)}
        _write_sound(sound)
        return {"input_image": str(image), "input_audio": str(sound)}
    if task.endswith("_extension") or task.startswith("v2v"):
        _write_clip(clip)
        return {"input_video": str(clip)}
    return {}


def _write_sound(file: Path) -> None:
    tone = np.sin(np.arange(16000 * SECONDS) * 0.05) * 3000
    with wave.open(str(file), "wb") as opened:
        opened.setnchannels(1)
        opened.setsampwidth(2)
        opened.setframerate(16000)
        opened.writeframes(tone.astype("<i2").tobytes())


def _write_clip(file: Path, count: int = 40) -> None:
    with video_writer.open_writer(file, "mp4", size=SIZE, fps=24, num_frames=count) as writer:
        for _ in range(count):
            writer.write(np.zeros((1, SIZE[1], SIZE[0], 3), np.uint8))
        writer.finish()
        writer.publish()
