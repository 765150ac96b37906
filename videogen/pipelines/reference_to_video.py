"""reference_to_video: a video of the subjects in 1-4 reference images (spec skyreels_v3 section 9)."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from videogen.diffusion.conditioning import Context, Segment
from videogen.diffusion.guidance import DualGuidance, SinglePass
from videogen.diffusion.sampling import SIGMA_MAX_DOUBLE
from videogen.media.image import fit_on_white
from videogen.pipelines.base import Part, StepCallback
from videogen.pipelines.wan import WanPipeline
from videogen.tasks.geometry import latent_frames

if TYPE_CHECKING:
    from videogen.pipelines import typed


class ReferenceToVideoPipeline(WanPipeline):
    """References follow the video in time, at its own noise level; empty slots are zero latents."""

    task = "reference_to_video"
    if TYPE_CHECKING:
        __call__ = typed.reference_to_video

    @torch.no_grad()
    def parts(  # noqa: PLR0913 - the arguments of the task, under diffusers' names
        self,
        prompt: str,
        ref_imgs: Sequence[Image.Image],
        *,
        height: int,
        width: int,
        num_frames: int,
        num_inference_steps: int,
        shift: float,
        sample_solver: str,
        guidance_scale: float,
        guidance_scale_img: float,
        negative_prompt: str,
        generator: torch.Generator | None = None,
        callback_on_step_end: StepCallback | None = None,
    ) -> Iterator[Part]:
        """Yield one part.

        Draws from the generator, in order: the noise [1, 16, F, h, w]; for every reference its posterior
        [1, 16, 1, h, w]; with lcm in every step noise [1, 16, F, h, w]; all normal, float32.
        """
        # 1. Noise, then references: the order of the random draws.
        noise = self.draw_noise(latent_frames(num_frames), height, width, generator)
        references = self.encode_references(ref_imgs, height, width, generator)
        seen = {"cond": references, "no_text": references, "uncond": torch.zeros_like(references)}

        # 2. Choose the guidance and encode the text of every branch.
        guided = guidance_scale > 1
        guidance = DualGuidance(guidance_scale, guidance_scale_img) if guided else SinglePass()
        contexts = {"cond": Context(text=self.embed(prompt))}
        if guided:
            contexts["no_text"] = contexts["uncond"] = Context(text=self.embed(negative_prompt))

        # 3. Denoise [video, references] as one stack of frames; only the video is updated.
        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            video = Segment(latents=latents, timestep=timestep)
            behind = video.frames

            def velocity(branch: str) -> Tensor:
                context = Segment(latents=seen[branch], timestep=timestep, temporal_start=behind)
                return self.velocity([video, context], contexts[branch], branch)

            return self.guide(guidance, velocity)

        start = {"sigma_max": SIGMA_MAX_DOUBLE} if sample_solver == "unipc" else {}  # as published
        solver = self.make_solver(sample_solver, num_inference_steps, shift, generator, **start)
        latents = self.denoise(noise, solver, predict, callback_on_step_end)

        # 4. Decode as the frames are read.
        yield Part(latents, self.decode(latents))

    def encode_references(
        self, ref_imgs: Sequence[Image.Image], height: int, width: int, generator: torch.Generator | None
    ) -> Tensor:
        """Encode references to [1, 16, 4, h, w]: one sampled frame per image, zeros after them.

        The network always sees as many frames as the task takes images.
        """
        images = [fit_on_white(image.convert("RGB"), width, height) for image in ref_imgs]
        frames = [self.encode_image(image, sample=True, generator=generator) for image in images]
        empty = [torch.zeros_like(frames[0])] * (self.row.inputs["ref_imgs"].most - len(frames))
        return torch.cat([*frames, *empty], dim=2)
