"""shot_switching_extension: a video goes on after a cut (spec skyreels_v3 section 8)."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from videogen.diffusion.conditioning import Segment
from videogen.media.video_reader import InputVideo
from videogen.pipelines.base import Part, StepCallback, prompt_of
from videogen.pipelines.pixels import frames_tensor, truncated
from videogen.pipelines.wan import WanPipeline
from videogen.tasks.geometry import Roll, video_frames

if TYPE_CHECKING:
    from videogen.pipelines import typed

SHOT_POSITION = 1024  # temporal position of the shot before the cut


class ShotSwitchingExtensionPipeline(WanPipeline):
    """Extension after a cut.

    The old shot is far away in time, at noise level 0; the new one begins with its own frame.
    """

    task = "shot_switching_extension"
    if TYPE_CHECKING:
        __call__ = typed.shot_switching_extension
    to_uint8 = staticmethod(truncated)

    @torch.no_grad()
    def parts(  # noqa: PLR0913 - the arguments of the task, under diffusers' names
        self,
        prompt: str | Sequence[str],
        input_video: InputVideo,
        *,
        height: int,
        width: int,
        rolls: Sequence[Roll],
        num_inference_steps: int,
        shift: float,
        sample_solver: str,
        guidance_scale: float,
        negative_prompt: str,
        source_fps: float | None = None,
        color_match: bool = False,
        generator: torch.Generator | None = None,
        callback_on_step_end: StepCallback | None = None,
    ) -> Iterator[Part]:
        """Yield one part.

        Draws from the generator: the noise [1, 16, F, h, w], and with lcm as much in every step; normal,
        float32.
        """
        # 1. Encode the old shot and draw noise.
        (roll,) = rolls
        count = video_frames(roll.context_frames)
        source = frames_tensor(input_video.tail(count, source_fps=source_fps), height, width)
        shot = self.encode_video(source)
        noise = self.draw_noise(roll.latent_frames, height, width, generator)

        # 2. Encode the text of every guidance branch.
        guided = self.text_guidance(prompt_of(prompt, 0), negative_prompt, guidance_scale)

        # 3. Denoise [video, old shot]; only the video is updated.
        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            video = Segment(latents=latents, timestep=timestep)
            context = Segment(latents=shot, timestep=torch.zeros_like(timestep), temporal_start=SHOT_POSITION)
            return self.guided_velocity([video, context], guided)

        solver = self.make_solver(sample_solver, num_inference_steps, shift, generator)
        latents = self.denoise(noise, solver, predict, callback_on_step_end)

        # 4. Decode only the new shot.
        yield Part(latents, self.decode(latents, source[:, :, -1:] if color_match else None))
