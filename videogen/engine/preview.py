"""Previews while a video is made: what a step predicts, as a small animation beside the output."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from videogen.errors import CheckpointError, is_out_of_memory, one_line
from videogen.files import atomic_write, remove
from videogen.media.animation import write_webp
from videogen.models import latent_preview
from videogen.models.latent_preview import TABLE_FILE, Decoder
from videogen.models.tiny_decoder import load_tiny_decoder
from videogen.pipelines.base import VideoPipeline
from videogen.planning.plan import Plan
from videogen.results.progress import PreviewWritten, Reporter

logger = logging.getLogger(__name__)


@dataclass
class Previews:
    """Writer of a preview every so many steps; what goes wrong with one ends them, and never the run."""

    every: int
    decoder: Decoder
    path: Path
    fps: float
    reporter: Reporter
    failed: bool = False

    def __call__(self, step: int, clean: Callable[[], Tensor]) -> None:
        """Write the preview of a step, if it is due; as ``VideoPipeline.on_prediction``."""
        if step % self.every or self.failed:
            return
        try:
            frames = latent_preview.small(self.decoder.frames(clean())).numpy()
            with atomic_write(self.path) as temporary:
                write_webp(temporary, frames, self.decoder.stride / self.fps)
        except Exception as error:
            if not (isinstance(error, OSError) or is_out_of_memory(error)):
                raise
            self.failed = True
            logger.warning("%s: no more previews of this video (%s)", self.path, one_line(error))
        else:
            self.reporter.emit(PreviewWritten(step=step, path=str(self.path)))


@contextmanager
def write_previews(plan: Plan, pipeline: VideoPipeline) -> Iterator[None]:
    """Write previews of the plan's video in the block, if they are asked for; remove the last if it succeeds.

    ``--keep_parts`` keeps it.
    """
    every = plan.options.preview_every
    decoder = None if every is None else _decoder(plan, pipeline)
    if every is None or decoder is None:
        yield
        return
    path = plan.outputs.preview
    pipeline.on_prediction = Previews(every, decoder, path, plan.shape.fps, pipeline.reporter)
    try:
        yield
    finally:
        pipeline.on_prediction = None
    if not plan.options.keep_parts:
        remove(path)


def _decoder(plan: Plan, pipeline: VideoPipeline) -> Decoder | None:
    """Return what decodes the previews of a plan's video; without any the user is told how to get it."""
    decoder: Decoder | None
    try:
        if plan.options.vae_preview is not None:
            return load_tiny_decoder(plan.options.vae_preview.path, pipeline._execution_device)
        decoder = latent_preview.linear_decoder(pipeline.vae.config, plan.checkpoint.folder)
    except CheckpointError as error:
        logger.warning("no previews: %s", one_line(error))
        return None
    if decoder is None:
        fix = f"python -m benchmarks.fit_preview --model FOLDER writes FOLDER/{TABLE_FILE}"
        logger.warning("no previews: no table is known for the latents of this VAE; %s", fix)
    return decoder
