"""diffusion_forcing: every latent frame has its own noise level (spec skyreels_v2 section 9).

So a video may start with known frames, and be generated segment after segment.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor
from torch.nn import functional

from videogen.diffusion.conditioning import Segment
from videogen.diffusion.sampling import NUM_TRAIN_TIMESTEPS, FrameSolver, Solver
from videogen.media.image import crop_to_ratio
from videogen.media.video_reader import InputVideo
from videogen.pipelines.base import Part, StepCallback, prompt_of, seeded
from videogen.pipelines.pixels import frames_tensor, record_frames, truncated
from videogen.pipelines.wan import Guided, WanPipeline
from videogen.tasks.forcing_schedule import Row, forcing_rows
from videogen.tasks.geometry import Roll, floor_frames, latent_frames

if TYPE_CHECKING:
    from videogen.pipelines import typed

logger = logging.getLogger(__name__)

FPS_CLASS_0 = 16  # frames a second; every other rate is class 1
STEPS = 1  # sub-stream of a segment's generator, for the solver


class DiffusionForcingPipeline(WanPipeline):
    """Short and long videos, from text, a start image, start and end images, or a video.

    Known frames (a start image, or the end of the previous segment) are the first latent frames of a segment,
    at level 0 and never updated. An end image is one more such frame after the last, dropped before decoding.

    Draws from the generator: per segment its noise [1, 16, F, h, w], normal, float32, including the prefix.
    The noise of ``addnoise_condition`` and of lcm's steps (in every row, for the frames it updates, group by
    group) comes from separate generators per segment, seeded from this one's seed.
    """

    task = "diffusion_forcing"
    if TYPE_CHECKING:
        __call__ = typed.diffusion_forcing
    to_uint8 = staticmethod(truncated)

    def complete(self, given: Mapping[str, object]) -> dict[str, object]:
        """Fill in defaults; an overlap that is not 4k+1 frames is rounded down, as in diffusers."""
        overlap = given.get("overlap_history")
        if isinstance(overlap, int) and overlap > (whole := floor_frames(overlap)) > 0:
            logger.warning("overlap_history=%d: the VAE encodes 4k+1 frames; %d are used", overlap, whole)
            given = {**given, "overlap_history": whole}
        return super().complete(given)

    @torch.no_grad()
    def parts(  # noqa: PLR0913 - the arguments of the task, under diffusers' names
        self,
        prompt: str | Sequence[str],
        *,
        height: int,
        width: int,
        rolls: Sequence[Roll],
        fps: int,
        num_inference_steps: int,
        shift: float,
        sample_solver: str,
        guidance_scale: float,
        negative_prompt: str,
        ar_step: int = 0,
        causal_block_size: int = 1,
        causal_attention: bool = False,
        base_num_frames: int = 97,
        overlap_history: int | None = None,
        addnoise_condition: int = 0,
        input_image: Image.Image | None = None,
        end_image: Image.Image | None = None,
        input_video: InputVideo | None = None,
        generator: torch.Generator | None = None,
        callback_on_step_end: StepCallback | None = None,
        first: int = 0,
        state: Mapping[str, Tensor] | None = None,
    ) -> Iterator[Part]:
        """Yield one part per segment, from segment ``first`` on; ``state`` is the previous part's."""
        # 1. Frames that are known before the first segment.
        overlap, size, generator = overlap_history or 0, (height, width), seeded(generator)
        solver = partial(self.make_solver, sample_solver, num_inference_steps, shift)
        block, noisy = causal_block_size, addnoise_condition
        forcing = Forcing(solver, num_inference_steps, ar_step, block, causal_attention, noisy)
        start, end = (self.encode_still(image, *size) for image in (input_image, end_image))
        history = deque(frames_before(state, input_video, overlap, size), maxlen=overlap)
        self.reset_cache(forcing.num_steps(latent_frames(base_num_frames)))

        for index, roll in enumerate(rolls):
            # 2. Noise, known frames, text.
            noise = self.draw_noise(roll.latent_frames, *size, generator)
            if index < first:
                continue  # finished; only its noise is drawn
            overlapping = latent_frames(overlap) if history else 0
            known = self.known_frames(history, block) if history else start
            text, fps_class = prompt_of(prompt, index), self.fps_class(fps)
            guided = self.text_guidance(text, negative_prompt, guidance_scale, fps=fps_class)

            # 3. Denoise, every frame on its own schedule; the last segment sees the end image.
            scene = forcing.prepare(noise, known, guided, partial(of_segment, generator, index))
            predict = partial(self.predict, scene, end if index == len(rolls) - 1 else None)
            counted = forcing.num_steps(roll.latent_frames - overlapping) if overlapping else None
            latents = self.denoise(noise, scene.solver, predict, callback_on_step_end, counted=counted)

            # 4. Decode all, yield the new frames; the last ones condition the next segment.
            frames = record_frames(islice(self.decode(latents), overlapping, None), history)
            part = Part(latents, frames, partial(handed_over, history))
            yield part
            part.finish()
            if self.interrupt:
                return

    def predict(self, scene: "Scene", after: Tensor | None, latents: Tensor, row: Row) -> Tensor:
        """Return the guided velocity of the frames in the row's window; zero outside it.

        ``after``: latent frame of an end image, which follows the window.
        """
        first, end = row.window
        shown, levels = scene.noise.condition(latents, scene.solver.timesteps(row))
        level = levels[first:end]
        alike = bool((level == level[0]).all())
        segments = [Segment(latents=shown[:, :, first:end], timestep=level[0] if alike else level)]
        if after is not None:
            segments.append(Segment(latents=after, timestep=torch.tensor(0), temporal_start=end - first))
        velocity = self.guided_velocity(segments, scene.guided, visible_frames=scene.visible)
        return functional.pad(velocity, (0, 0, 0, 0, first, latents.shape[2] - end))

    def encode_still(self, image: Image.Image | None, height: int, width: int) -> Tensor | None:
        """Encode an image, cropped to the video's ratio and scaled (bicubic), to one latent frame."""
        if image is None:
            return None
        cropped = crop_to_ratio(image.convert("RGB"), width, height)
        picture = cropped.resize((width, height), Image.Resampling.BICUBIC)
        return self.encode_video(frames_tensor(np.array(picture)[None]))

    def known_frames(self, history: deque[Tensor], block: int) -> Tensor:
        """Encode the last frames again, cut to whole blocks of latent frames."""
        latents = self.encode_video(torch.cat(list(history), dim=2))
        return latents[:, :, : latents.shape[2] // block * block]

    def fps_class(self, fps: int) -> Tensor | None:
        """Return the fps class [1] for models with a frame-rate embedding."""
        if not self.transformer.config.inject_sample_info:
            return None
        return torch.tensor([0 if fps == FPS_CLASS_0 else 1], device=self._execution_device)


def of_segment(generator: torch.Generator, segment: int, *purpose: int) -> torch.Generator:
    """Return a generator for a segment, independent of earlier draws; one per purpose if several."""
    entropy = np.random.SeedSequence([generator.initial_seed(), segment, *purpose])
    seed = int(entropy.generate_state(1, np.uint64)[0]) % 2**63
    return torch.Generator(generator.device).manual_seed(seed)


class ConditionNoise:
    """Noise of ``level`` 0..1000 on the known frames of the model input, drawn again for every row.

    The published code draws it from an unseeded generator (spec skyreels_v2 section 9.2).
    """

    def __init__(self, level: int, known: int, generator: torch.Generator) -> None:
        self.level, self.known, self.generator = level, known, generator

    def draw(self, like: Tensor) -> Tensor:
        """Draw normal noise, float32."""
        return randn_tensor(like.shape, generator=self.generator, device=like.device, dtype=like.dtype)

    def condition(self, latents: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Return (latents, levels) with noise on the known frames."""
        if not (self.level and self.known):
            return latents, levels
        weight = self.level / NUM_TRAIN_TIMESTEPS
        clean = latents[:, :, : self.known]
        noisy = clean * (1 - weight) + weight * self.draw(clean)
        levels = torch.cat([torch.full_like(levels[: self.known], self.level), levels[self.known :]])
        return torch.cat([noisy, latents[:, :, self.known :]], dim=2), levels


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Inputs of ``predict`` that a segment keeps: guidance, solver, noise on known frames, visible frames."""

    guided: Guided
    solver: FrameSolver
    noise: ConditionNoise
    visible: Sequence[int] | None


@dataclass(frozen=True, slots=True)
class Forcing:
    """How frames are denoised; every block of frames is ``ar_step`` steps ahead of the next.

    Args:
        solver: generator -> solver.
        condition_noise: noise level of the known frames in the model's input.
    """

    solver: Callable[[torch.Generator], Solver]
    steps: int
    ar_step: int
    block: int
    causal_attention: bool
    condition_noise: int

    def num_steps(self, frames: int) -> int:
        """Return the forwards for so many latent frames, as the published step cache counts them."""
        return self.steps + self.ar_step * (frames // self.block - 1)

    def prepare(
        self, noise: Tensor, known: Tensor | None, guided: Guided, generator: Callable[..., torch.Generator]
    ) -> Scene:
        """Put the known frames into a segment's noise, and return what else ``predict`` needs."""
        frames, ready = noise.shape[2], 0 if known is None else known.shape[2]
        if known is not None:
            noise[:, :, :ready] = known
        rows = forcing_rows(frames, self.steps, ar_step=self.ar_step, block=self.block, ready=ready)
        solver = FrameSolver(partial(self.solver, generator(STEPS)), rows, ready)
        visible = visible_frames(frames, self.block) if self.causal_attention else None
        return Scene(guided, solver, ConditionNoise(self.condition_noise, ready, generator()), visible)


def frames_before(
    state: Mapping[str, Tensor] | None, video: InputVideo | None, overlap: int, size: tuple[int, int]
) -> Sequence[Tensor]:
    """Return the frames [1, 3, 1, H, W] to continue from: the saved ones, the end of a video, or none."""
    if state is not None:
        return state["frames"].split(1, dim=2)
    return () if video is None else frames_tensor(video.tail(overlap, size=size[::-1])).split(1, dim=2)


def handed_over(history: deque[Tensor]) -> dict[str, Tensor]:
    """Return what the next segment continues from: the last frames [1, 3, F, H, W], if it overlaps."""
    return {"frames": torch.cat(list(history), dim=2)} if history else {}


def visible_frames(frames: int, block: int) -> Sequence[int]:
    """Return the end of each frame's view in block-causal attention: its own block and earlier ones."""
    return [(frame // block + 1) * block for frame in range(frames)]
