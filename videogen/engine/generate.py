"""From a pipeline's parts to files: frames streamed out, finished rolls kept, metadata beside the result."""

import logging
import platform
import tempfile
import time
import wave
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from videogen import __version__, files
from videogen.checkpoints import model_features
from videogen.errors import VideoGenError
from videogen.files import write_json
from videogen.media import audio, video_writer
from videogen.pipelines.base import Part, VideoPipeline
from videogen.pipelines.pixels import frames_tensor
from videogen.planning.plan import Plan
from videogen.results import sidecar
from videogen.results.output_paths import Target
from videogen.runtime import device as devices
from videogen.runtime.parallel import ALONE, Team

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One finished video: its files, and ``record``, which is what its sidecar holds."""

    target: Target
    record: Mapping[str, Any]


def write(
    plan: Plan,
    pipeline: VideoPipeline,
    generator: torch.Generator,
    started: float,
    *,
    team: Team = ALONE,
    resume: bool,
    show_progress: bool,
) -> Result:
    """Generate, and stream the frames into the target; names appear at the end, that of the sidecar last.

    Raises:
        VideoGenError: it could not be made or written; nothing unfinished is left but whole rolls.
    """
    target, shape, record = target_of(plan), plan.shape, _record(plan, pipeline)
    for path in target.paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    kept = plan.parts if len(shape.rolls) > 1 else None
    done = kept.finished() if kept is not None and resume else 0
    resumed = team.share(_resumed(plan, done))
    latents: list[torch.Tensor] = []
    with (
        _say_what_is_kept(plan),
        ExitStack() as stack,
        video_writer.open_writer(
            target.path,
            target.kind,
            size=shape.file_size,
            fps=shape.fps,
            num_frames=shape.file_frames,
            comment=sidecar.comment(record),
            audio=stack.enter_context(_sound(plan)),
        ) as output,
    ):
        for frames in _source_frames(plan, pipeline):
            output.write(frames)
        for index in range(done):
            assert kept is not None
            latents += [kept.latents(index)] if target.latents is not None else []
            for frames in kept.frames(index):
                output.write(fit(frames, shape.file_size))
        if kept is not None and not done:
            kept.remove()
        if done:
            _say_what_is_done(plan, pipeline, done)
        for index, part in enumerate(_parts(plan, pipeline, generator, resumed), start=done):
            made, last = _write_part(plan, pipeline, part, index, output, show_progress=show_progress)
            latents += [made] if target.latents is not None else []
        with pipeline.stage("write"):
            output.finish()
        pipeline.maybe_free_model_hooks()
        record |= _measured(plan, pipeline, started)
        if target.latents is not None:
            _save_latents(target.latents, latents)
        if target.last_frame is not None:
            _save_picture(target.last_frame, last)
        target = replace(target, path=output.publish(may_replace=target.may_replace))
        record["output"] = target.path.name
        with files.writing(target.sidecar):
            write_json(target.sidecar, record)
    if not plan.values.get("keep_parts"):
        plan.parts.remove()
    return Result(target=target, record=record)


def _write_part(
    plan: Plan,
    pipeline: VideoPipeline,
    part: Part,
    index: int,
    output: video_writer.PendingFile,
    *,
    show_progress: bool,
) -> tuple[torch.Tensor, np.ndarray]:
    """Stream one part into the result, and where there are several, keep it on disk too.

    Returns:
        its latents and its last frame [H, W, 3].
    """
    shape, count = plan.shape, plan.shape.rolls[index].num_frames
    _check_finite(part.latents)
    latents = part.latents.float().cpu()
    with ExitStack() as stack:
        several = f" {index + 1} of {len(shape.rolls)}" if len(shape.rolls) > 1 else ""
        bar = stack.enter_context(
            tqdm(total=count, desc=f"decoding{several}", unit="frame", disable=not show_progress)
        )
        copy = None
        if len(shape.rolls) > 1:
            size = (shape.width, shape.height)
            copy = stack.enter_context(plan.parts.record(index, size, shape.fps, count))
        frames = np.empty((1, 0, 0, 3), np.uint8)
        for chunk in part.frames:
            frames = pipeline.to_uint8(chunk)[0].permute(1, 2, 3, 0).cpu().numpy()
            with pipeline.stage("write"):
                output.write(fit(frames, shape.file_size))
                if copy is not None:
                    copy.write(frames)
            bar.update(len(frames))
        if copy is not None:
            copy.finish(latents, part.state(), _effective(pipeline))
            if not show_progress:
                logger.info("roll%s is finished", several)
    return latents, frames[-1]


@contextmanager
def _say_what_is_kept(plan: Plan) -> Iterator[None]:
    """When a run ends early, tell how to go on from its finished rolls."""
    try:
        yield
    except BaseException:
        if count := plan.parts.finished():
            named = plan.values.get("output") or plan.values.get("output_dir")
            again = "--resume" if named else f"--output {target_of(plan).path} --resume"
            advice = f"the same command with {again} (and without --overwrite) goes on behind them"
            logger.warning("%d finished rolls are kept in %s; %s", count, plan.parts.folder, advice)
        raise


def follow_along(plan: Plan, pipeline: VideoPipeline, generator: torch.Generator, team: Team) -> None:
    """What the other ranks do while the first one is in ``write``."""
    for part in _parts(plan, pipeline, generator, team.share(None)):
        for _ in part.frames:
            pass


def _parts(
    plan: Plan, pipeline: VideoPipeline, generator: torch.Generator, resumed: Mapping[str, Any]
) -> Iterator[Part]:
    """The pipeline's parts, from the first that is not done."""
    if resumed.get("first") == len(plan.shape.rolls):
        return iter(())
    loaded = {name: [item.load() for item in items] for name, items in plan.inputs.items()}
    return pipeline.parts(**plan.arguments, **plan.task.inputs_of(loaded), generator=generator, **resumed)


def _resumed(plan: Plan, done: int) -> dict[str, Any]:
    """What a pipeline needs to go on behind finished parts."""
    return {"first": done, "state": plan.parts.state(0) | plan.parts.state(done - 1)} if done else {}


def _say_what_is_done(plan: Plan, pipeline: VideoPipeline, done: int) -> None:
    logger.info("continuing after %d finished rolls", done)
    for name, value in _effective(pipeline).items():
        if (was := plan.parts.effective().get(name, value)) != value:
            logger.warning("--%s: now %s, but %s in the finished rolls; frames may differ", name, value, was)


def _effective(pipeline: VideoPipeline) -> dict[str, Any]:
    """What 'auto' options came to here."""
    return {"attention_backend": pipeline.attention_backend, "vae_tiling": pipeline.vae.use_tiling}


@contextmanager
def _sound(plan: Plan) -> Iterator[video_writer.Audio | None]:
    """Sound for the file: a stretch of an input, or what the model heard of it."""
    if plan.audio is None or plan.values.get("audio_track") != "normalized":
        yield video_writer.Audio(*plan.audio) if plan.audio is not None else None
        return
    (source,), (*_, seconds) = plan.inputs["input_audio"], plan.audio
    with tempfile.TemporaryDirectory(prefix="videogen-") as folder:
        path = Path(folder) / "sound.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(audio.SAMPLE_RATE)
            file.writeframes(audio.pcm16(audio.waveform(source)).tobytes())
        yield video_writer.Audio(path, 0.0, seconds)


def _source_frames(plan: Plan, pipeline: VideoPipeline) -> Iterator[np.ndarray]:
    """Frames [1, H, W, 3] of the source that come first in the file.

    Cut to the file's (even) size where that is the source's own; else scaled, and taken through the range
    [-1, 1] as the new frames are, which costs some pixels a level (spec skyreels_v2 section 9.6).
    """
    if not plan.shape.prepended:
        return
    (source,), (width, height) = plan.inputs["input_video"], plan.shape.file_size
    if plan.shape.canvas is not None:
        for frame in source.frames(source_fps=plan.values["source_fps"], fps=plan.shape.fps):
            yield frame[None, :height, :width]
        return
    grey = frames_tensor(np.arange(256, dtype=np.uint8).repeat(3).reshape(256, 1, 1, 3))
    levels = pipeline.to_uint8(grey)[0, 0, :, 0, 0].numpy()
    for frame in source.frames(size=(width, height)):
        yield levels[frame][None]


def fit(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Frames [f, H, W, 3] at (width, height): as they are, or scaled (Lanczos)."""
    if frames.shape[2:0:-1] == size:
        return frames
    scaled = [Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS) for frame in frames]
    return np.stack([np.asarray(image) for image in scaled])


def target_of(plan: Plan) -> Target:
    """Where a plan's result goes."""
    assert plan.target is not None
    return plan.target


def _measured(plan: Plan, pipeline: VideoPipeline, started: float) -> dict[str, Any]:
    seconds = {**pipeline.seconds, "total": time.perf_counter() - started}
    cache = pipeline.step_cache
    forwards: dict[str, Any] = {}
    if cache is not None:
        counts: dict[str, Any] = {"computed": cache.computed, "skipped": cache.skipped}
        if plan.degrees.cfg > 1:
            counts["of"] = "rank 0"  # which makes some of the branches
        forwards[cache.recorded_as] = counts
    return {
        **forwards,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "peak_memory": devices.peak_memory(pipeline._execution_device),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _check_finite(latents: torch.Tensor) -> None:
    if not latents.isfinite().all():
        raise VideoGenError(
            "the denoised latents are not finite numbers; try --dtype bfloat16, a smaller --shift or "
            "--guidance_scale, and check the model's files"
        )


def _save_picture(target: Path, frame: np.ndarray) -> None:
    with files.writing(target), files.atomic_write(target) as temporary:
        Image.fromarray(frame).save(temporary, format="PNG")


def _save_latents(target: Path, latents: Sequence[torch.Tensor]) -> None:
    """float32 [1, C, F, h, w]: 'latents', or 'latents_0', 'latents_1', ... for several parts."""
    names = [f"latents_{i}" for i in range(len(latents))] if len(latents) > 1 else ["latents"]
    with files.writing(target):
        files.save_tensors(target, dict(zip(names, latents, strict=True)))


def _prompts(plan: Plan) -> dict[str, Any]:
    """What was asked for, what models made of it, and which."""
    given = plan.values.get("roll_prompts") or plan.values.get("prompt")
    models = {role: found.title for role, found in plan.writers.items()}
    return {"given": given, "models": models, **plan.written}


def _record(plan: Plan, pipeline: VideoPipeline) -> dict[str, Any]:
    """The sidecar, but for what is known only at the end."""
    checkpoint, shape = plan.checkpoint, plan.shape
    return {
        "schema": sidecar.SCHEMA,
        "videogen": __version__,
        "request": plan.request,
        "plan_hash": plan.plan_hash,
        "model": {
            "id": checkpoint.name,
            "revision": checkpoint.revision,
            "layout": checkpoint.layout,
            "fingerprint": model_features.fingerprint(checkpoint),
        },
        **({"prompts": _prompts(plan)} if plan.written else {}),
        "seed": plan.seed,
        "index": plan.index,
        "width": shape.file_size[0],
        "height": shape.file_size[1],
        "num_frames": shape.file_frames,
        "fps": shape.fps,
        "inputs": {
            name: [{"name": item.name, "sha256": item.sha256} for item in items]
            for name, items in plan.inputs.items()
        },
        "device": devices.device_name(pipeline._execution_device),
        "dtype": plan.values["dtype"],
        **({"ranks": asdict(plan.degrees)} if plan.degrees.size > 1 else {}),
        **_effective(pipeline),
        "versions": devices.versions() | {"platform": platform.system()},
    }
