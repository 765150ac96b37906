"""Wan2.2 TI2V-5B: text_to_video, image_to_video and v2v-5B (spec wan22 sections 6 and 14)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from videogen.diffusion.conditioning import Segment
from videogen.media.image import cover
from videogen.media.video_reader import InputVideo
from videogen.pipelines.base import Part, StepCallback
from videogen.pipelines.pixels import image_tensor, truncated
from videogen.pipelines.wan import WanPipeline, first_frame
from videogen.tasks.geometry import latent_frames

if TYPE_CHECKING:
    from videogen.pipelines import typed


class Wan22TI2V5BPipeline(WanPipeline):
    """Wan2.2 TI2V-5B; a first frame is the first latent frame, at level 0, and the others are denoised."""

    task, family = "image_to_video", "Wan2.2 5B"
    if TYPE_CHECKING:
        __call__ = typed.wan22_5b
    to_uint8 = staticmethod(truncated)

    def entries_for_diffusers(self, folder: Path) -> Mapping[str, Any]:
        """Return that each frame has its own noise level, as a first frame that is known needs."""
        del folder
        return {"expand_timesteps": True}

    @torch.no_grad()
    def parts(  # noqa: PLR0913 - the arguments of the tasks, under diffusers' names
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
        input_image: Image.Image | None = None,
        input_video: InputVideo | None = None,
        color_match: bool = False,
        generator: torch.Generator | None = None,
        callback_on_step_end: StepCallback | None = None,
    ) -> Iterator[Part]:
        """Yield one part.

        Draws from the generator: the noise [1, 48, F, h, w], and with lcm in every step as much, without a
        known first frame; normal, float32.
        """
        # 1. Noise, the first frame (scaled and cropped), text.
        noise = self.draw_noise(latent_frames(num_frames), height, width, generator)
        known = noise[:, :, :0]
        if (image := first_frame(input_image, input_video)) is not None:
            known = self.encode_image(cover(image, width, height))
        start = known.shape[2]
        guided = self.text_guidance(prompt, negative_prompt, guidance_scale, exactly_one=True)

        # 2. Denoise what follows the known frame.
        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            first = Segment(latents=known, timestep=torch.zeros_like(timestep))
            video = Segment(latents=latents, timestep=timestep, temporal_start=start)
            segments = [first, video] if start else [video]
            return self.guided_velocity(segments, guided, which=-1)

        solver = self.make_solver(sample_solver, num_inference_steps, shift, generator)
        latents = self.denoise(noise[:, :, start:], solver, predict, callback_on_step_end)

        # 3. Decode as the frames are read.
        latents = torch.cat([known.float(), latents], dim=2)
        reference = image_tensor(image)[None, :, None] if color_match and image is not None else None
        yield Part(latents, self.decode(latents, reference))
