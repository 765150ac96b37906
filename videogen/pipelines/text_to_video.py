"""text_to_video: a video from a text (spec skyreels_v2 section 7)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from videogen.diffusion.conditioning import Segment
from videogen.pipelines.base import Part, StepCallback
from videogen.pipelines.pixels import truncated
from videogen.pipelines.wan import WanPipeline
from videogen.tasks.geometry import latent_frames

if TYPE_CHECKING:
    from videogen.pipelines import typed


class TextToVideoPipeline(WanPipeline):
    """Text-to-video: noise and text only."""

    task = "text_to_video"
    if TYPE_CHECKING:
        __call__ = typed.text_to_video
    to_uint8 = staticmethod(truncated)

    @torch.no_grad()
    def parts(  # noqa: PLR0913 - the arguments of the task, under diffusers' names
        self,
        prompt: str,
        *,
        height: int,
        width: int,
        num_frames: int,
        num_inference_steps: int,
        shift: float,
        sample_solver: str,
        guidance_scale: float,
        negative_prompt: str,
        generator: torch.Generator | None = None,
        callback_on_step_end: StepCallback | None = None,
    ) -> Iterator[Part]:
        """Yield one part.

        Draws from the generator: the noise [1, 16, F, h, w], and with lcm as much in every step; normal,
        float32.
        """
        # 1. Text and noise.
        self.reset_cache(num_inference_steps)
        guided = self.text_guidance(prompt, negative_prompt, guidance_scale, exactly_one=True)
        noise = self.draw_noise(latent_frames(num_frames), height, width, generator)

        # 2. Denoise.
        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            video = Segment(latents=latents, timestep=timestep)
            return self.guided_velocity([video], guided)

        solver = self.make_solver(sample_solver, num_inference_steps, shift, generator)
        latents = self.denoise(noise, solver, predict, callback_on_step_end)

        # 3. Decode as the frames are read.
        yield Part(latents, self.decode(latents))
