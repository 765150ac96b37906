"""Base of all pipelines: call, steps, stages, random draws, diffusers' conventions.

A pipeline's own file implements one method, ``parts``: the numbered steps of its task, as a generator of
finished parts (one per segment; most tasks have one). Everything common is here.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from tqdm import tqdm

from videogen.checkpoints.layouts import WEIGHTLESS
from videogen.checkpoints.model_features import fingerprint
from videogen.diffusion.guidance import Guidance, Velocity, evaluate_sequentially, guide
from videogen.diffusion.sampling import FrameSolver, Solver, StopDenoising, denoise, make_solver
from videogen.models.device_copies import to_device
from videogen.models.fifo_cache import FifoCache
from videogen.models.interface import ContextCache, StepCache
from videogen.pipelines.calls import Calls
from videogen.pipelines.embedding_cache import get_or_compute
from videogen.pipelines.pixels import Part
from videogen.pipelines.scheduler import PublishedScheduler, solver_of
from videogen.results.progress import Reporter

__all__ = ("Part", "StepCallback", "VideoPipeline", "prompt_of", "seeded")

StepCallback = Callable[["VideoPipeline", int, Tensor, dict[str, Any]], Mapping[str, Tensor] | None]
"""diffusers' callback_on_step_end: (pipeline, index, timestep, tensors by name) -> replacements or None."""

logger = logging.getLogger(__name__)

CACHED_EMBEDDINGS = 16


class VideoPipeline(Calls):
    """Base of all pipelines; ``task`` names the row of TASKS that a pipeline implements."""

    embedding_cache: Path | None = None  # folder for encoded prompts
    attention_backend = "native"  # for the metadata; see runtime/apply.py
    step_cache: StepCache | None = None
    context_caches: Sequence[ContextCache] = ()
    cpu_encoders: ClassVar[Sequence[str]] = ()  # small enough to run on the CPU with --low_vram
    always_tiled: ClassVar[bool] = False  # True if the published decode is always tiled

    def __init__(self, scheduler: SchedulerMixin | None = None) -> None:
        super().__init__()
        self.seconds: dict[str, float] = defaultdict(float)
        self.step_seconds: list[float] = []
        self._embeddings = FifoCache(CACHED_EMBEDDINGS)
        self._interrupt = False
        self.register_modules(scheduler=scheduler)
        self.reporter = Reporter()  # set from outside

    evaluate: Callable[[Sequence[str], Velocity], Sequence[Tensor]] = staticmethod(evaluate_sequentially)
    """How the branches of a guidance are evaluated; set from outside, see runtime/parallel.py."""

    sync_scalar: Callable[[float], float] = staticmethod(float)
    """Broadcast rank 0's value so that all ranks take the same branch; set from outside like ``evaluate``."""

    on_prediction: Callable[[int, Callable[[], Tensor]], None] | None = None
    """Called in every step with its number, from 1, and what returns the clean latents that it predicts."""

    def guide(self, guidance: Guidance, velocity: Velocity) -> Tensor:
        """Evaluate every branch of a guidance and combine them, in float32."""
        return guide(self._state.adjusted(guidance), velocity, self.evaluate)

    @property
    def interrupt(self) -> bool:
        """Set ``pipeline._interrupt = True`` in a callback to stop after that step, as in diffusers."""
        return self._interrupt

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Report a stage of the work, and add its time to ``seconds[name]``."""
        with self.reporter.stage(name), self.measured(name):
            yield

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
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
        return solver_of(self.scheduler, steps, generator, levels.get("sigma_min"))

    def timed(self, stream: Iterator[Tensor], stage: str) -> Iterator[Tensor]:
        """Yield a stream's chunks; only the time spent producing them counts for a stage."""
        while True:
            with self.measured(stage):
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
        known: int = 0,
    ) -> Tensor:
        """Run the denoising loop with progress bar, diffusers' callback and interruption.

        ``counted``: number of steps passed to a step cache if the published code does not count them all.
        ``known``: leading frames that are clean, whatever is predicted for them.
        """
        state, total, numbers = self._state, len(solver.schedule), count(1)
        state.num_timesteps = total
        if self.step_cache is not None:
            self.step_cache.start_loop(total, counted)
        self._clear_contexts()
        try:
            with (
                self.measured("denoise"),
                self.reporter.steps(total) as advance,
                self.progress_bar(total=total) as bar,
            ):
                on_step = self._on_step(bar, advance, solver, callback)

                def watched(latents: Tensor, row: Any) -> Tensor:
                    state.current_timestep = solver.level(row)
                    velocity = predict(latents, row)

                    def clean() -> Tensor:
                        frames = solver.clean(velocity, row, latents)[:, :, known:]
                        return torch.cat([latents[:, :, :known].float(), frames], dim=2)

                    if self.on_prediction is not None:
                        self.on_prediction(next(numbers), clean)
                    return velocity

                return denoise(noise, solver.schedule, watched, solver.step, pin, on_step)
        finally:
            state.current_timestep = None
            self._clear_contexts()
            if self.step_cache is not None:
                self.step_cache.end_loop()

    def _on_step(
        self,
        bar: tqdm,
        advance: Callable[[float], None],
        solver: Solver | FrameSolver,
        callback: StepCallback | None,
    ) -> Callable[[int, Any, Tensor], Tensor]:
        """Return what a denoising loop calls after every step."""
        state, last_step = self._state, time.monotonic()

        def on_step(index: int, row: Any, latents: Tensor) -> Tensor:
            nonlocal last_step
            now = time.monotonic()
            self.step_seconds.append(now - last_step)
            last_step = now
            bar.update()
            advance(1)
            self.reporter.check_stop()
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
