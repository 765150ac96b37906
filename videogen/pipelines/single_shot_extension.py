"""single_shot_extension: continue a video in the same shot, in segments (spec skyreels_v3 section 7)."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from videogen.diffusion.conditioning import Segment
from videogen.media.video_reader import InputVideo
from videogen.pipelines.base import Part, StepCallback, prompt_of, seeded
from videogen.pipelines.pixels import frames_tensor, record_frames, truncated
from videogen.pipelines.wan import Guided, WanPipeline
from videogen.tasks.geometry import Roll, video_frames

if TYPE_CHECKING:
    from videogen.pipelines import typed


class SingleShotExtensionPipeline(WanPipeline):
    """Extension of a shot.

    The last 25 frames come first in time, at noise level 0; each segment's last 25 condition the next.
    """

    task = "single_shot_extension"
    if TYPE_CHECKING:
        __call__ = typed.single_shot_extension
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
        handover: str = "frames",
        color_match: bool = False,
        generator: torch.Generator | None = None,
        callback_on_step_end: StepCallback | None = None,
        first: int = 0,
        state: Mapping[str, Tensor] | None = None,
    ) -> Iterator[Part]:
        """Yield one part per segment, from ``first`` on; ``state`` is the previous part's.

        Draws from the generator in every segment, from the same seed: the noise [1, 16, F, h, w], and with
        lcm as much in every step; normal, float32.
        """
        # 1. The last frames of the source, 8-bit, stretched to size.
        count = video_frames(rolls[0].context_frames)
        source = frames_tensor(input_video.tail(count, source_fps=source_fps), height, width)
        reference = source[:, :, -1:] if color_match else None
        generator, state = seeded(generator), state or {}

        for index, roll in list(enumerate(rolls))[first:]:
            # 2. Condition, noise, text.
            before = self.condition(source, state)
            generator.manual_seed(generator.initial_seed())
            noise = self.draw_noise(roll.latent_frames, height, width, generator)
            guided = self.text_guidance(prompt_of(prompt, index), negative_prompt, guidance_scale)

            # 3. Denoise [condition, video]; only the video is updated.
            solver = self.make_solver(sample_solver, num_inference_steps, shift, generator)
            predict = partial(self.predict, before, guided)
            latents = self.denoise(noise, solver, predict, callback_on_step_end)

            # 4. Decode both, yield the new frames, keep the last ones for the next segment.
            whole, last = torch.cat([before.float(), latents], dim=2), deque[Tensor](maxlen=count)
            frames = record_frames(self.decode(whole, reference), last, self.to_uint8)
            kept = {"latents": whole[:, :, -roll.context_frames :]} if handover == "latents" else {}
            part = Part(latents, islice(frames, roll.context_frames, None), partial(handed_over, last, kept))
            yield part
            state = part.finish()
            if self.interrupt:
                return

    def condition(self, source: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Return the latents of the frames to continue from: the previous segment's, or the source's."""
        if "latents" in state:
            return state["latents"].to(self._execution_device)
        return self.encode_video(frames_tensor(state["frames"]) if state else source)

    def predict(self, before: Tensor, guided: Guided, latents: Tensor, timestep: Tensor) -> Tensor:
        """Return the guided velocity of the video after its condition, which has no noise."""
        prefix = Segment(latents=before, timestep=torch.zeros_like(timestep))
        video = Segment(latents=latents, timestep=timestep, temporal_start=prefix.frames)
        return self.guided_velocity([prefix, video], guided, which=1)


def handed_over(last: deque[Tensor], kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what the next segment continues from: 8-bit frames [F, H, W, 3], and latents if kept."""
    return {"frames": torch.cat(list(last), dim=2)[0].permute(1, 2, 3, 0).contiguous(), **kept}
