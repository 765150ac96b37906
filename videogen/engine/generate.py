"""Generating a plan's video: frames are streamed to files, finished segments stored, metadata written."""

import logging
import platform
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from videogen import __version__, files
from videogen.checkpoints import model_features
from videogen.checkpoints.lora import file_of
from videogen.engine.outcome import Result
from videogen.engine.preview import write_previews
from videogen.errors import VideoGenError
from videogen.files import Record
from videogen.media import audio, video_writer
from videogen.media.contact_sheet import ContactSheet
from videogen.media.download import display_name
from videogen.media.output_formats import Encoding
from videogen.pipelines.base import Part, VideoPipeline
from videogen.pipelines.pixels import frames_tensor
from videogen.planning.plan import Plan
from videogen.results import publishing, sidecar
from videogen.results.digest import digest, sha256
from videogen.results.output_paths import OutputPaths
from videogen.results.progress import SegmentFinished
from videogen.results.resume_store import ResumeStore, SegmentWriter
from videogen.runtime import device as devices
from videogen.runtime.parallel import SINGLE_PROCESS, Communicator
from videogen.tasks.option_types import Lora
from videogen.tasks.options import Options

logger = logging.getLogger(__name__)


class ResumePoint(NamedTuple):
    """Where the pipeline continues: the first unfinished segment, and the state after the one before it."""

    first: int
    state: dict[str, torch.Tensor]


def write(
    plan: Plan,
    pipeline: VideoPipeline,
    generator: torch.Generator,
    started: float,
    *,
    communicator: Communicator = SINGLE_PROCESS,
    resume: bool,
) -> Result:
    """Generate a plan's video and write its files; they get their names at the end (results/publishing.py).

    Raises:
        VideoGenError: the video could not be generated or written; only finished segments are left.
    """
    outputs, shape, record = plan.outputs, plan.shape, _record(plan, pipeline)
    for path in outputs.paths:
        with files.writing(path):
            files.make_folder_of(path)
    store = plan.resume_store if len(shape.rolls) > 1 else None
    done = store.num_intact() if store is not None and resume else 0
    resumed = communicator.broadcast(_resume_point(plan.resume_store, done))
    latents: list[torch.Tensor] = []
    last = np.empty((0, 0, 3), np.uint8)
    sheet = ContactSheet(shape.file_frames, plan.options.contact_sheet or 0, shape.fps)
    with (
        _log_stored_segments(plan),
        write_previews(plan, pipeline),
        ExitStack() as stack,
        video_writer.open_writer(
            outputs.path,
            outputs.kind,
            size=shape.file_size,
            fps=shape.fps,
            num_frames=shape.file_frames,
            comment=sidecar.comment(record),
            audio=stack.enter_context(_audio_file(plan)),
            encoding=encoding_of(plan.options),
            also=sheet.add,
        ) as output,
    ):
        for frames in _source_frames(plan, pipeline):
            output.write(frames)
        if store is not None:
            latents += _replay(plan, store, done, output)
        _log_resumed(plan, pipeline, done)
        pipeline.reporter.segment = done + 1
        for index, segment in enumerate(_segments(plan, pipeline, generator, resumed), start=done):
            made, last = _write_segment(plan, pipeline, segment, index, output)
            latents += [made] if outputs.latents is not None else []
        with pipeline.measured("write"):
            output.finish()
        pipeline.maybe_free_model_hooks()
        record |= _measurements(plan, pipeline, started)
        beside = _write_beside(stack, outputs, latents, last, sheet)
        with files.writing(outputs.path):
            outputs = publishing.publish(outputs, {"video": output.temporary, **beside}, record)
    if not plan.options.keep_parts:
        with files.writing(plan.resume_store.folder):
            plan.resume_store.remove()
    return Result(outputs=outputs, record=record)


def encoding_of(options: Options) -> Encoding:
    """Return how the options want a video encoded."""
    published = options.video_colors == "published"
    return Encoding(codec=options.codec, crf=options.crf, published=published)


def _replay(
    plan: Plan, store: ResumeStore, done: int, output: video_writer.PendingFile
) -> list[torch.Tensor]:
    """Write the stored segments, or clear the store if none is kept; return their latents if wanted."""
    if not done:
        with files.writing(store.folder):
            store.remove()
    latents = []
    for index in range(done):
        latents += [store.latents(index)] if plan.outputs.latents is not None else []
        for frames in store.frames(index):
            output.write(fit(frames, plan.shape.file_size))
    return latents


def _write_segment(
    plan: Plan, pipeline: VideoPipeline, segment: Part, index: int, output: video_writer.PendingFile
) -> tuple[torch.Tensor, np.ndarray]:
    """Write a segment's frames to the result, and of a video of several segments to the resume store too.

    Returns:
        the segment's latents and its last frame [H, W, 3].
    """
    shape, count, reporter = plan.shape, plan.shape.rolls[index].num_frames, pipeline.reporter
    _check_finite(segment.latents)
    latents = segment.latents.float().cpu()
    with ExitStack() as stack:
        advance = stack.enter_context(reporter.stage("decode", total=count, unit="frame"))
        copy = None
        if len(shape.rolls) > 1:
            size = (shape.width, shape.height)
            copy = stack.enter_context(SegmentWriter(plan.resume_store, index, size, shape.fps, count))
        frames = np.empty((1, 0, 0, 3), np.uint8)
        for chunk in segment.frames:
            frames = pipeline.to_uint8(chunk)[0].permute(1, 2, 3, 0).cpu().numpy()
            with pipeline.measured("write"):
                output.write(fit(frames, shape.file_size))
                if copy is not None:
                    copy.write(frames)
            advance(len(frames))
        if copy is not None:
            copy.finish(latents, segment.state(), _resolved_settings(pipeline))
    if len(shape.rolls) > 1:
        reporter.emit(SegmentFinished())
        reporter.segment = min(index + 2, len(shape.rolls))
    return latents, frames[-1]


@contextmanager
def _log_stored_segments(plan: Plan) -> Iterator[None]:
    """If the block fails, log how to continue from the stored segments."""
    try:
        yield
    except BaseException:
        if count := plan.resume_store.num_finished():
            named = plan.options.output or plan.options.output_dir
            again = "--resume" if named else f"--output {plan.outputs.path} --resume"
            advice = f"re-run with {again} (without --overwrite) to continue"
            logger.warning("kept %d finished segments in %s; %s", count, plan.resume_store.folder, advice)
        raise


def run_worker(
    plan: Plan, pipeline: VideoPipeline, generator: torch.Generator, communicator: Communicator
) -> None:
    """Run the pipeline on a worker rank while rank 0 is in ``write``."""
    for segment in _segments(plan, pipeline, generator, communicator.broadcast(None)):
        for _ in segment.frames:
            pass


def _segments(
    plan: Plan, pipeline: VideoPipeline, generator: torch.Generator, resumed: ResumePoint | None
) -> Iterator[Part]:
    """Yield the pipeline's segments, from the first unfinished one."""
    if resumed is not None and resumed.first == len(plan.shape.rolls):
        return iter(())
    loaded = {name: [item.load() for item in items] for name, items in plan.inputs.items()}
    arguments = {**plan.arguments, **plan.task.inputs_of(loaded), **(resumed._asdict() if resumed else {})}
    return pipeline.parts(**arguments, generator=generator)


def _resume_point(store: ResumeStore, done: int) -> ResumePoint | None:
    """Return where to continue after ``done`` finished segments; None after none."""
    return ResumePoint(done, store.state(0) | store.state(done - 1)) if done else None


def _log_resumed(plan: Plan, pipeline: VideoPipeline, done: int) -> None:
    if not done:
        return
    logger.info("continuing after %d finished segments", done)
    stored = plan.resume_store.stored_settings()
    for name, value in _resolved_settings(pipeline).items():
        if (was := stored.get(name, value)) != value:
            what = "--%s: now %s, but %s in the finished segments; frames may differ"
            logger.warning(what, name, value, was)


def _resolved_settings(pipeline: VideoPipeline) -> dict[str, object]:
    """Return what 'auto' options resolved to."""
    return {"attention_backend": pipeline.attention_backend, "vae_tiling": pipeline.vae.use_tiling}


@contextmanager
def _audio_file(plan: Plan) -> Iterator[video_writer.Audio | None]:
    """Yield the audio for the video: a stretch of an input file, or the normalized input of the model."""
    if plan.audio is None or plan.options.audio_track != "normalized":
        yield video_writer.Audio(*plan.audio) if plan.audio is not None else None
        return
    (source,), (*_, seconds) = plan.inputs["input_audio"], plan.audio
    with files.work_folder() as folder:
        path = folder / "audio.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(audio.SAMPLE_RATE)
            file.writeframes(audio.pcm16(audio.waveform(source)).tobytes())
        yield video_writer.Audio(path, 0.0, seconds)


def _source_frames(plan: Plan, pipeline: VideoPipeline) -> Iterator[np.ndarray]:
    """Yield the frames [1, H, W, 3] of the source that come first in the file.

    They are cut to the file's (even) size where that is the source's own; else scaled, and taken through the
    range [-1, 1] as the new frames are, which changes some pixels by a level (spec skyreels_v2 section 9.6).
    """
    if not plan.shape.prepended:
        return
    (source,), (width, height) = plan.inputs["input_video"], plan.shape.file_size
    if plan.shape.canvas is not None:
        for frame in source.frames(source_fps=plan.options.source_fps, fps=plan.shape.fps):
            yield frame[None, :height, :width]
        return
    grey = frames_tensor(np.arange(256, dtype=np.uint8).repeat(3).reshape(256, 1, 1, 3))
    levels = pipeline.to_uint8(grey)[0, 0, :, 0, 0].numpy()
    for frame in source.frames(size=(width, height)):
        yield levels[frame][None]


def fit(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale frames [f, H, W, 3] to (width, height) with Lanczos, if they have another size."""
    if frames.shape[2:0:-1] == size:
        return frames
    scaled = [Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS) for frame in frames]
    return np.stack([np.asarray(image) for image in scaled])


def _measurements(plan: Plan, pipeline: VideoPipeline, started: float) -> Record:
    """Return the facts of a run for its record: timings, memory, forwards that a step cache skipped."""
    seconds = {**pipeline.seconds, "total": time.perf_counter() - started}
    cache = pipeline.step_cache
    forwards: Record = {}
    if cache is not None:
        counts: Record = {"computed": cache.computed, "skipped": cache.skipped}
        if plan.facts.degrees.cfg > 1:
            counts["of"] = "rank 0"  # which computes some of the branches
        forwards[cache.recorded_as] = counts
    return {
        **forwards,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "step_seconds": [round(value, 3) for value in pipeline.step_seconds],
        "peak_memory": devices.peak_memory(pipeline._execution_device),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _check_finite(latents: torch.Tensor) -> None:
    if not latents.isfinite().all():
        raise VideoGenError(
            "the denoised latents are not finite numbers; try --dtype bfloat16, a smaller --shift or "
            "--guidance_scale, and check the model's files"
        )


def _write_beside(
    stack: ExitStack,
    outputs: OutputPaths,
    latents: Sequence[torch.Tensor],
    last: np.ndarray,
    sheet: ContactSheet,
) -> dict[str, Path]:
    """Write the files that go with the video; their temporaries are there until the stack is closed."""
    writers: dict[str, Callable[[Path], None]] = {
        "latents": lambda file: _save_latents(file, latents),
        "last_frame": lambda file: Image.fromarray(last).save(file, "PNG"),
        "sheet": lambda file: sheet.picture().save(file, "PNG"),
    }
    written = {}
    for role, target in outputs.files.items():
        if role in writers:
            with files.writing(target):
                written[role] = stack.enter_context(files.temporary_sibling(target))
                writers[role](written[role])
    return written


def _save_latents(file: Path, latents: Sequence[torch.Tensor]) -> None:
    """Write latents, float32 [1, C, F, h, w]: 'latents', or 'latents_0', 'latents_1', ... of several."""
    names = [f"latents_{i}" for i in range(len(latents))] if len(latents) > 1 else ["latents"]
    files.write_tensors(file, dict(zip(names, latents, strict=True)))


def _prompts(plan: Plan) -> Record:
    """Return the given prompt, the prompts that models wrote, and the models' names."""
    given = plan.options.roll_prompts or plan.options.prompt
    models = {role: found.title for role, found in plan.prompt_writers.items()}
    return {"given": given, "models": models, **plan.written}


def _replaced(plan: Plan) -> Record:
    """Return names and digests of the files in place of components."""
    files = plan.checkpoint.replaced
    return {name: {"name": path.name, "sha256": sha256(path)} for name, path in files.items()}


def _lora(lora: Lora) -> Record:
    file = file_of(lora.path)
    return {
        "name": display_name(lora.name),
        "sha256": digest(file)["sha256"],
        "scale": lora.scale,
        "expert": lora.expert,
    }


def _record(plan: Plan, pipeline: VideoPipeline) -> Record:
    """Return the content of the sidecar, except for what is known only at the end."""
    checkpoint, shape, late = plan.checkpoint, plan.shape, plan.notes_of_written if plan.written else []
    for note in late:
        logger.warning(note)
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
            **({"replaced": _replaced(plan)} if checkpoint.replaced else {}),
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
        "loras": [_lora(lora) for lora in plan.options.lora],
        "warnings": [*plan.warnings, *late],
        "device": devices.device_name(pipeline._execution_device),
        "dtype": plan.options.dtype,
        **({"ranks": asdict(plan.facts.degrees)} if plan.facts.degrees.size > 1 else {}),
        **_resolved_settings(pipeline),
        "versions": devices.versions() | {"platform": platform.system()},
    }
