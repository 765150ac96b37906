"""diffusion_forcing: every latent frame has its own noise level (spec skyreels_v2 section 9).

So a video may start with known frames, and be generated segment after segment.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor
from torch.nn import functional

from videogen.diffusion.conditioning import Context, Segment
from videogen.diffusion.guidance import Guidance
from videogen.diffusion.sampling import NUM_TRAIN_TIMESTEPS, FrameSolver, denoise, make_solver
from videogen.media.image import crop_to_ratio
from videogen.media.video_reader import InputVideo
from videogen.pipelines.base import Part, StepCallback, prompt_of, seeded
from videogen.pipelines.pixels import frames_tensor, truncated
from videogen.pipelines.wan import WanPipeline
from videogen.tasks.forcing_schedule import Row, forcing_rows
from videogen.tasks.geometry import Roll, latent_frames

FPS_CLASS_0 = 16  # frames a second; every other rate is class 1
STEPS = 1  # sub-stream of a segment's generator, for the solver


class DiffusionForcingPipeline(WanPipeline):
    """Short and long videos, from text, a start image, start and end images, or a video.

    Known frames (a start image, or the end of the previous segment) are the first latent frames of a segment,
    at level 0 and never updated. An end image is one more such frame after the last, dropped before decoding.
    """

    task = "diffusion_forcing"
    to_uint8 = staticmethod(truncated)

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
        """Yield one part per segment, from segment ``first`` on; ``state`` is the previous part's.

        Draws from the generator: per segment its noise [1, 16, F, h, w], normal, float32, including the
        prefix. The noise of ``addnoise_condition`` and of lcm's steps (in every row, for the frames it
        updates, group by group) comes from separate generators per segment, seeded from this one's seed.
        """
        # 1. Prepare known frames before the first segment: pixels of a video, latents of images.
        overlap, block = overlap_history or 0, causal_block_size
        history: deque[Tensor] = deque(maxlen=overlap)  # frames [1, 3, 1, H, W]
        if state is not None:
            history.extend(state["frames"].split(1, dim=2))
        elif input_video is not None:
            history.extend(frames_tensor(input_video.tail(overlap, size=(width, height))).split(1, dim=2))
        start, end = (
            None if image is None else self.encode_still(image, height, width)
            for image in (input_image, end_image)
        )
        generator = seeded(generator)
        apart = latent_frames(base_num_frames) // block - 1
        self.reset_cache(num_inference_steps + ar_step * apart)
        for roll in rolls[:first]:  # noise of finished segments
            self.draw_noise(roll.latent_frames, height, width, generator)

        for index, roll in list(enumerate(rolls))[first:]:
            # 2. Draw noise, replace its first frames by known ones, encode text.
            continued = input_video is not None or index > 0
            noise = self.draw_noise(roll.latent_frames, height, width, generator)
            known = self.known_frames(history, block) if continued else start
            if known is not None:
                noise[:, :, : known.shape[2]] = known
            ready = 0 if known is None else known.shape[2]
            guided = self.text_guidance(
                prompt_of(prompt, index), negative_prompt, guidance_scale, fps=self.fps_class(fps)
            )

            # 3. Denoise, every frame on its own schedule.
            rows = forcing_rows(
                roll.latent_frames, num_inference_steps, ar_step=ar_step, block=block, ready=ready
            )
            fresh = of_segment(generator, index, STEPS)
            make = partial(make_solver, sample_solver, num_inference_steps, shift, fresh)
            solver = FrameSolver(make, rows, ready)
            scene = Scene(
                guided=guided,
                solver=solver,
                noise=ConditionNoise(addnoise_condition, ready, of_segment(generator, index)),
                end=end if index == len(rolls) - 1 else None,
                visible=visible_frames(roll.latent_frames, block) if causal_attention else None,
            )
            apart = (roll.latent_frames - latent_frames(overlap)) // block - 1
            counted = num_inference_steps + ar_step * apart if continued else None
            with self.steps(len(rows), callback_on_step_end, counted=counted) as on_step:
                latents = denoise(noise, rows, partial(self.predict, scene), solver.step, on_step=on_step)

            # 4. Decode all, keep the new frames; the last frames condition the next segment.
            chunks = self.decode(latents)
            for _ in range(latent_frames(overlap) if continued else 0):
                next(chunks)
            frames = record_frames(chunks, history)
            yield Part(latents, frames, lambda: {"frames": torch.cat(list(history), dim=2)})
            deque(frames, maxlen=0)  # decode the frames that were not read
            if self.interrupt:
                return

    def predict(self, scene: "Scene", latents: Tensor, row: Row) -> Tensor:
        """Return the guided velocity of the frames in the row's window; zero outside it."""
        first, end = row.window
        shown, levels = scene.noise.condition(latents, scene.solver.timesteps(row))
        level = levels[first:end]
        alike = bool((level == level[0]).all())
        segments = [Segment(latents=shown[:, :, first:end], timestep=level[0] if alike else level)]
        if scene.end is not None:
            segments.append(Segment(latents=scene.end, timestep=torch.tensor(0), temporal_start=end - first))
        guidance, contexts = scene.guided
        velocity = self.guide(
            guidance,
            lambda branch: self.velocity(segments, contexts[branch], branch, visible_frames=scene.visible),
        )
        return functional.pad(velocity, (0, 0, 0, 0, first, latents.shape[2] - end))

    def encode_still(self, image: Image.Image, height: int, width: int) -> Tensor:
        """Encode an image, cropped to the video's ratio and scaled (bicubic), to one latent frame."""
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


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scene:
    """Inputs of ``predict`` besides latents and row: guidance, contexts, solver and noise of a segment."""

    guided: tuple[Guidance, Mapping[str, Context]]
    solver: FrameSolver
    noise: ConditionNoise
    end: Tensor | None
    visible: Tensor | None


def visible_frames(frames: int, block: int) -> Tensor:
    """Return the end of each frame's view in block-causal attention [F]: its own block and earlier ones."""
    return (torch.arange(frames) // block + 1) * block


def record_frames(chunks: Iterator[Tensor], history: deque[Tensor]) -> Iterator[Tensor]:
    """Yield the chunks [1, 3, f, H, W] and append their frames to ``history``."""
    for chunk in chunks:
        history.extend(chunk.float().cpu().split(1, dim=2))
        yield chunk
