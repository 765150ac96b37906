"""Base of all pipelines: call, steps, stages, random draws, diffusers' conventions.

A pipeline's own file implements one method, ``parts``: the numbered steps of its task, as a generator of
finished parts (one per segment; most tasks have one). Everything common is here.
"""

import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import current_thread
from typing import Any, ClassVar, Self

import torch
from diffusers import DiffusionPipeline, ModelMixin, SchedulerMixin
from diffusers.pipelines.pipeline_loading_utils import _unwrap_model
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from tqdm import tqdm

from videogen.checkpoints.layouts import WEIGHTLESS, Checkpoint
from videogen.checkpoints.model_features import fingerprint
from videogen.diffusion.guidance import Guidance, Velocity, evaluate_sequentially, guide
from videogen.diffusion.sampling import FrameSolver, Solver, StopDenoising, denoise, make_solver
from videogen.errors import InputError
from videogen.models.device_copies import to_device
from videogen.models.fifo_cache import FifoCache
from videogen.models.interface import ContextCache, OffloadedComponents, StepCache
from videogen.pipelines.call import COMMON, EMBEDDINGS, TEXTS, Batch, CallArguments, RunState, RunStates
from videogen.pipelines.embedding_cache import get_or_compute
from videogen.pipelines.pixels import Frames, VideoOutput, collect, joined, rounded
from videogen.pipelines.scheduler import PublishedScheduler, scheduler_for, solver_of
from videogen.pipelines.signature import check_texts, describe_call, embedding_names, named, rows_of, usable
from videogen.pipelines.transformers import own_transformer
from videogen.planning.python_call import ACCEPT, is_several
from videogen.prompts.length import cut_notes
from videogen.tasks.options import OPTIONS, Options, defaults, merge
from videogen.tasks.table import TASKS, variant
from videogen.tasks.task_spec import TRANSFORMERS, TaskSpec, check_prompt_count, check_scales

StepCallback = Callable[["VideoPipeline", int, Tensor, dict[str, Tensor]], Mapping[str, Tensor] | None]
"""diffusers' callback_on_step_end: (pipeline, index, timestep, {"latents": ...}) -> replacements or None."""

logger = logging.getLogger(__name__)

CACHED_EMBEDDINGS = 16
LOG_EVERY = 30.0  # seconds, where there is no progress bar


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Finished segment: denoised latents [1, C, F, h, w] (float32, before denormalisation) and its video.

    ``frames`` decodes while it is read: [1, 3, f, H, W] in [-1, 1] per latent frame. After all frames are
    read, ``state`` returns what ``parts`` needs to continue from here.
    """

    latents: Tensor
    frames: Iterator[Tensor]
    state: Callable[[], dict[str, Tensor]] = dict

    def finish(self) -> dict[str, Tensor]:
        """Decode the frames that were not read, and return the state."""
        deque(self.frames, maxlen=0)
        return self.state()


class VideoPipeline(RunStates, DiffusionPipeline):
    """Base of all pipelines; ``task`` names the row of TASKS that a pipeline implements."""

    task: ClassVar[str]
    family: ClassVar[str | None] = None  # of its models, if not the task's default
    spec: TaskSpec | None = None  # row it was loaded for; None: the row of the task's default model
    checkpoint: Checkpoint | None = None  # where the components came from; sets defaults and sizes
    embeddings: ClassVar[Sequence[str]] = ("prompt_embeds",)  # what a call may give in place of a prompt
    _callback_tensor_inputs: ClassVar = ["latents", *EMBEDDINGS]
    embedding_cache: Path | None = None  # folder for encoded prompts
    attention_backend = "native"  # for the metadata; see runtime/apply.py
    transformer_2: ModelMixin | None = None  # of models with two experts
    step_cache: StepCache | None = None
    context_caches: Sequence[ContextCache] = ()
    component_offload: OffloadedComponents | None = None
    cpu_encoders: ClassVar[Sequence[str]] = ()  # small enough to run on the CPU with --low_vram
    always_tiled: ClassVar[bool] = False  # True if the published decode is always tiled

    def __init__(self, scheduler: SchedulerMixin | None = None) -> None:
        super().__init__()
        self.seconds: dict[str, float] = defaultdict(float)
        self.step_seconds: list[float] = []
        self._embeddings = FifoCache(CACHED_EMBEDDINGS)
        self._interrupt = False
        self.register_modules(scheduler=scheduler)

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        if hasattr(cls, "task"):
            describe_call(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "scheduler":
            if self._state.running:
                raise InputError(
                    "scheduler", None, "cannot be set while a video is made", "set it before the call"
                )
            value = scheduler_for(value, lambda: self.row.defaults(self.checkpoint)["shift"])
        super().__setattr__(name, self._own(name, value))
        if name in getattr(self, "_internal_dict", {}):
            self._name_own_classes(name)

    def _own(self, name: str, value: object) -> object:
        return own_transformer(type(self), name, value) if name in TRANSFORMERS else value

    @property
    def transformers(self) -> list[ModelMixin]:
        """Denoising networks: one, or two experts."""
        return [getattr(self, name) for name in TRANSFORMERS if getattr(self, name, None) is not None]

    @classmethod
    def encoder_names(cls) -> list[str]:
        """Return the names of the components that run before the transformers, in order of use."""
        return cls.model_cpu_offload_seq.split("->transformer")[0].split("->")

    parts: Callable[..., Iterator[Part]]
    """The task itself, a method of each pipeline: yields finished parts in order."""

    to_uint8 = staticmethod(rounded)

    evaluate: Callable[[Sequence[str], Velocity], Sequence[Tensor]] = staticmethod(evaluate_sequentially)
    """How the branches of a guidance are evaluated; set from outside, see runtime/parallel.py."""

    sync_scalar: Callable[[float], float] = staticmethod(float)
    """Broadcast rank 0's value so that all ranks take the same branch; set from outside like ``evaluate``."""

    def loaded_from(self, checkpoint: Checkpoint, spec: TaskSpec) -> None:
        """Say which model the components are of, which decides the defaults."""
        self.checkpoint, self.spec = checkpoint, spec
        if isinstance(self.scheduler, PublishedScheduler):
            self.scheduler = None

    @property
    def row(self) -> TaskSpec:
        """Row of the task table that the pipeline was loaded for."""
        return self.spec or (variant(self.task, self.family) if self.family else TASKS[self.task])

    def guide(self, guidance: Guidance, velocity: Velocity) -> Tensor:
        """Evaluate every branch of a guidance and combine them, in float32."""
        return guide(self._state.adjusted(guidance), velocity, self.evaluate)

    def __call__(self, prompt: object = None, **arguments: object) -> VideoOutput | tuple[Frames]:
        """Make the videos of a call; each pipeline's own has the signature that ``describe_call`` makes."""
        given = named(type(self), {"prompt": prompt, **arguments})
        common = CallArguments(**{name: given.pop(name) for name in COMMON & given.keys()})
        common.check_tensor_inputs(self._callback_tensor_inputs)
        self._interrupt, made = False, []
        for own, state in self._batch(given, common).videos():
            made.append(self._make_video(own, state, common))
            if self._interrupt:
                break
        self.maybe_free_model_hooks()
        frames = joined(made)
        return VideoOutput(frames=frames) if common.return_dict else (frames,)

    def _batch(self, given: Mapping[str, Any], common: CallArguments) -> Batch:
        """Return the arguments of a call that differ from video to video."""
        encoded = {name: given[name] for name in embedding_names(type(self)) if name in given}
        check_texts(given, encoded)
        inputs = {name: files for row in rows_of(type(self)) for name, files in row.inputs.items()}
        listed = {name: value for name, value in given.items() if name not in encoded}
        for name, value in listed.items():
            several = is_several(inputs[name], value) if name in inputs else name in TEXTS
            if isinstance(value, list | tuple):
                listed[name] = list(value) if several else tuple(value)
        if isinstance(listed.get("prompt"), list) and self._has_segments(listed, common):
            listed["prompt"] = tuple(listed["prompt"])
        return Batch(listed=listed, embeddings=encoded, common=common)

    def _has_segments(self, listed: Mapping[str, Any], common: CallArguments) -> bool:
        """Return whether a list of prompts is for the segments of one video."""
        others = any(isinstance(value, list) for name, value in listed.items() if name != "prompt")
        nested = any(isinstance(prompt, list | tuple) for prompt in listed["prompt"])
        if others or nested or len(common.generators) > 1:
            return False
        return len(self.complete({**listed, "prompt": listed["prompt"][0]}).get("rolls", "1")) > 1

    def _make_video(self, given: dict[str, Any], state: RunState, common: CallArguments) -> Frames:
        """Make one video of a call."""
        encoded = {name: given.pop(name) for name in embedding_names(type(self)) if name in given}
        complete = self.complete(given) | self.encoded_prompts(encoded)
        state.start(complete["guidance_scale"])
        for note in self._cut_notes(complete):
            logger.warning(note)
        self._states[current_thread()] = state
        try:
            parts = self.parts(**complete, callback_on_step_end=common.callback_on_step_end)
            if common.output_type == "latent":
                return torch.cat([part.latents for part in parts], dim=2)
            chunks = (chunk for part in parts for chunk in part.frames)
            return collect(chunks, common.output_type, self.to_uint8)
        finally:
            self._states[current_thread()] = state.ended()

    def encoded_prompts(self, encoded: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return encoded prompts as the arguments of ``parts`` that they stand for."""
        return {name.removesuffix("_embeds"): tensor for name, tensor in encoded.items()}

    def row_for(self, given: Mapping[str, object]) -> TaskSpec:
        """Return the row of the task whose inputs were given: of several that the pipeline runs, with its weights."""
        wide = {model.config.in_channels for model in self.transformers}
        for row in (self.row, *(row for row in rows_of(type(self)) if row.family == self.row.family)):
            needed = {name for name, files in row.inputs.items() if files.fewest}
            there = {
                name for row in rows_of(type(self)) for name in row.inputs if given.get(name) is not None
            }
            if needed <= there <= row.inputs.keys() and (
                row is self.row or {row.network.in_channels} == wide
            ):
                return row
        return self.row

    def complete(self, given: Mapping[str, object]) -> dict[str, object]:
        """Arguments of ``parts`` with the task's defaults and the size rule filled in."""
        spec = self.row_for(given)
        inputs = {
            name: [ACCEPT[files.kind](name, item) for item in files.listed(given.get(name))]
            for name, files in spec.inputs.items()
        }
        for name, files in spec.inputs.items():
            files.check(f"{name}=", spec.name, len(inputs[name]))
        others = {name: value for name, value in given.items() if name not in OPTIONS}
        for name in given:
            if name in OPTIONS and name not in (taken := usable(spec)):
                what = f"is no argument of {spec.name}; it takes {', '.join(sorted(taken))}"
                raise InputError(f"{name}=", None, what, "leave it out")
        asked = {
            name: value if name == "prompt" else OPTIONS[name].value(value)
            for name, value in given.items()
            if value is not None and name not in (*others, *inputs)
        }
        self._check_schedule(asked)
        usual = {**defaults(), **spec.defaults(self.checkpoint)}
        options = spec.resolve_defaults(Options.of(merge(usual, asked)))
        check_scales(spec, options.guidance_scale)
        shape = spec.shape(options, inputs, spec.size_tables(self.checkpoint))
        if isinstance(prompt := given.get("prompt"), list | tuple):
            check_prompt_count("prompt=", len(prompt), len(shape.rolls))
        return {**others, **spec.pick(options, shape), **spec.inputs_of(inputs)}

    def _check_schedule(self, asked: Mapping[str, object]) -> None:
        """Refuse what chooses a schedule, where a scheduler is set that has its own."""
        if isinstance(self.scheduler, PublishedScheduler):
            return
        for name in ("shift", "sample_solver"):
            if name in asked:
                what = f"{type(self.scheduler).__name__} is set as scheduler and has its own"
                raise InputError(f"{name}=", asked[name], what, "leave it out, or set pipe.scheduler = None")

    def _cut_notes(self, given: Mapping[str, object]) -> Iterator[str]:
        """Yield a line for every prompt of which an encoder sees only the beginning."""
        texts: dict[str, str] = {}
        for name in ("prompt", "negative_prompt", "connection_prompt"):
            value = given.get(name)
            if isinstance(value, str):
                texts[f"{name}="] = value
            elif isinstance(value, list | tuple):
                texts |= {f"{name}[{index}]=": text for index, text in enumerate(value)}
        if self.checkpoint is not None:
            yield from cut_notes(self.row.text, self.checkpoint, texts)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """Load a pipeline: a folder that ``save_pretrained`` wrote, or any model that ``videogen.load`` takes.

        Args:
            pretrained_model_name_or_path: folder, hub id or 'tiny'.
            options: ``torch_dtype`` (float32 unless given, as in diffusers; or a dict of component, or
                'default', to dtype), ``device`` ('cpu' unless given) or ``device_map``; of a hub id
                ``revision``, ``token``, ``cache_dir``, ``local_files_only``; ``variant``; and components by
                name, in place of the model's own.

        Raises:
            InputError, CheckpointError: an unknown option, a model that is missing, or for another class.
        """
        import videogen  # noqa: PLC0415 - the package root loads models; pipelines import no loader

        return videogen._from_pretrained(cls, str(pretrained_model_name_or_path), **options)

    @classmethod
    def open_saved(cls, folder: str | Path, **options: Any) -> Self:
        """Open a folder that ``save_pretrained`` wrote, with diffusers' own loader."""
        return super().from_pretrained(folder, **options)

    @classmethod
    def _get_signature_keys(cls, obj: Any) -> tuple[list[str], list[str]]:
        """Return (components, other arguments); the scheduler is a component, though it may be left out."""
        components, others = super()._get_signature_keys(obj)
        return sorted({*components, "scheduler"}), [name for name in others if name != "scheduler"]

    def register_modules(self, **modules: Any) -> None:
        """Register components, with transformers that are ours, under the module they are loaded from again."""
        super().register_modules(**{name: self._own(name, module) for name, module in modules.items()})
        self._name_own_classes(*modules)

    def _name_own_classes(self, *names: str) -> None:
        for name in names:
            kind = type(_unwrap_model(getattr(self, name)))
            if kind.__module__.startswith("videogen."):
                self.register_to_config(**{name: (kind.__module__, kind.__name__)})

    def maybe_free_model_hooks(self) -> None:
        """Evict offloaded components, in addition to diffusers' own hooks."""
        super().maybe_free_model_hooks()
        if self.component_offload is not None:
            self.component_offload.evict_all()

    @property
    def interrupt(self) -> bool:
        """Set ``pipeline._interrupt = True`` in a callback to stop after that step, as in diffusers."""
        return self._interrupt

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to ``seconds[name]``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started

    def cached_embedding(self, encoder: str, key: str, compute: Callable[[], Tensor]) -> Tensor:
        """Return the embedding of a prompt on the device, computed if not cached.

        ``key`` identifies everything that the embedding depends on besides the encoder. Recent embeddings
        are cached in memory, and all on disk in ``embedding_cache`` if it is set.
        """

        def encoded() -> Tensor:
            with self.stage("text"):
                if self.embedding_cache is None or self.checkpoint is None:
                    return compute().cpu()
                files = [name for name, part in self.checkpoint.components.items() if part in WEIGHTLESS]
                depends_on = {
                    "encoder": encoder,
                    "files": str(fingerprint(self.checkpoint, encoder, *files)),
                    "dtype": str(getattr(self, encoder).dtype),
                    "said": key,
                }
                return get_or_compute(self.embedding_cache, depends_on, compute)

        return self._embeddings.get_or_compute((encoder, key), encoded).to(self._execution_device)

    def draw(self, shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
        """Draw normal noise, float32, on the generator's device; a call's ``latents`` are the first draw."""
        if (given := self._state.take_noise(shape)) is not None:
            return given.to(self._execution_device, torch.float32)
        device = generator.device if generator is not None else self._execution_device
        noise = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        return to_device(noise, self._execution_device)

    def make_solver(
        self, name: str, steps: int, shift: float, generator: torch.Generator | None, **levels: float
    ) -> Solver:
        """Return the solver of a run: the task's own, or the scheduler that is set."""
        if isinstance(self.scheduler, PublishedScheduler):
            return make_solver(name, steps, shift, generator, **levels)
        return solver_of(self.scheduler, steps, generator)

    def timed(self, stream: Iterator[Tensor], stage: str) -> Iterator[Tensor]:
        """Yield a stream's chunks; only the time spent producing them counts for a stage."""
        while True:
            with self.stage(stage):
                chunk = next(stream, None)
            if chunk is None:
                return
            yield chunk

    def denoise(
        self,
        noise: Tensor,
        solver: Solver | FrameSolver,
        predict: Callable[..., Tensor],
        callback: StepCallback | None,
        *,
        pin: Callable[[Tensor, int], Tensor] | None = None,
        counted: int | None = None,
    ) -> Tensor:
        """Run the denoising loop with progress bar, diffusers' callback and interruption.

        ``counted``: number of steps passed to a step cache if the published code does not count them all.
        """
        state, total = self._state, len(solver.schedule)
        state.num_timesteps = total
        if self.step_cache is not None:
            self.step_cache.start_loop(total, counted)
        self._clear_contexts()
        try:
            with self.stage("denoise"), self.progress_bar(total=total) as bar:
                on_step = self._on_step(bar, solver, callback)

                def watched(latents: Tensor, row: Any) -> Tensor:
                    state.current_timestep = solver.level(row)
                    return predict(latents, row)

                return denoise(noise, solver.schedule, watched, solver.step, pin, on_step)
        finally:
            state.current_timestep = None
            self._clear_contexts()
            if self.step_cache is not None:
                self.step_cache.end_loop()

    def _on_step(
        self, bar: tqdm, solver: Solver | FrameSolver, callback: StepCallback | None
    ) -> Callable[[int, Any, Tensor], Tensor]:
        """Return what a denoising loop calls after every step."""
        state, total = self._state, len(solver.schedule)
        started = last_log = last_step = time.monotonic()

        def on_step(index: int, row: Any, latents: Tensor) -> Tensor:
            nonlocal last_log, last_step
            now = time.monotonic()
            self.step_seconds.append(now - last_step)
            last_step = now
            bar.update()
            if bar.disable and now - last_log > LOG_EVERY:
                last_log, left = now, (now - started) / (index + 1) * (total - index - 1)
                logger.info("denoising: step %d of %d, about %.0f s left", index + 1, total, left)
            if callback is not None:
                replaced = callback(self, index, solver.level(row), state.tensors(latents)) or {}
                latents = replaced.get("latents", latents)
                state.replace_texts(replaced)
                self._clear_contexts()  # the callback may have changed weights
            if self._interrupt:
                raise StopDenoising(latents)
            return latents

        return on_step

    def _clear_contexts(self) -> None:
        for cache in self.context_caches:
            cache.clear()

    def reset_cache(self, num_steps: int) -> None:
        """Start a new generation of ``num_steps`` steps in the step cache."""
        if self.step_cache is not None:
            self.step_cache.reset(num_steps)


def seeded(generator: torch.Generator | None) -> torch.Generator:
    """Return the generator, or a new one with a random seed."""
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    return generator


def prompt_of(prompt: str | Tensor | Sequence[str], roll: int) -> str | Tensor:
    """Return the prompt of a segment: one for all, or one each, the last repeated."""
    return prompt if isinstance(prompt, str | Tensor) else prompt[min(roll, len(prompt) - 1)]
