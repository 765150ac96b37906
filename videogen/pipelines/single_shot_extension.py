"""single_shot_extension: continue a video in the same shot, in segments (spec skyreels_v3 section 7)."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from videogen.diffusion.conditioning import Context, Segment
from videogen.diffusion.guidance import Guidance
from videogen.diffusion.sampling import denoise, make_solver
from videogen.media.video_reader import InputVideo
from videogen.pipelines.base import Part, StepCallback, prompt_of, seeded
from videogen.pipelines.color import match_color
from videogen.pipelines.pixels import frames_tensor, truncated
from videogen.pipelines.wan import WanPipeline
from videogen.tasks.families.skyreels_v3 import CONDITION_FRAMES
from videogen.tasks.geometry import Roll


class SingleShotExtensionPipeline(WanPipeline):
    """Extension of a shot.

    The last 25 frames come first in time, at noise level 0; each segment's last 25 condition the next.
    """

    task = "single_shot_extension"
    to_uint8 = staticmethod(truncated)

    def predict(
        self,
        before: Tensor,
        guidance: Guidance,
        contexts: Mapping[str, Context],
        latents: Tensor,
        timestep: Tensor,
    ) -> Tensor:
        """Return the guided velocity of the video after its condition, which has no noise."""
        prefix = Segment(latents=before, timestep=torch.zeros_like(timestep))
        video = Segment(latents=latents, timestep=timestep, temporal_start=prefix.frames)
        return self.guide(
            guidance, lambda branch: self.velocity([prefix, video], contexts[branch], branch, which=1)
        )

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
        # 1. Read the last 25 frames to continue from, 8-bit, stretched to size.
        source = frames_tensor(input_video.tail(CONDITION_FRAMES, source_fps=source_fps), height, width)
        condition = source if state is None else frames_tensor(state["frames"])
        carried = None if state is None else state.get("latents")
        generator = seeded(generator)

        for index, roll in list(enumerate(rolls))[first:]:
            # 2. Condition, noise, text.
            before = self.encode_video(condition) if carried is None else carried.to(self._execution_device)
            generator.manual_seed(generator.initial_seed())
            noise = self.draw_noise(roll.latent_frames, height, width, generator)
            guided = self.text_guidance(prompt_of(prompt, index), negative_prompt, guidance_scale)

            # 3. Denoise [condition, video]; only the video is updated.
            predict = partial(self.predict, before, *guided)
            solver = make_solver(sample_solver, num_inference_steps, shift, generator)
            with self.steps(len(solver.timesteps), callback_on_step_end) as on_step:
                latents = denoise(noise, solver.timesteps, predict, solver.step, on_step=on_step)

            # 4. Decode both, hand the last frames to the next segment, yield the new ones.
            whole = torch.cat([before.float(), latents], dim=2)
            last: deque[Tensor] = deque(maxlen=CONDITION_FRAMES)
            chunks = self.decode(whole)
            if color_match:
                chunks = (match_color(chunk, source[:, :, -1:]) for chunk in chunks)
            rest = {"latents": whole[:, :, -roll.context_frames :]} if handover == "latents" else {}

            def handed_over(last: deque = last, rest: dict = rest) -> dict[str, Tensor]:
                return {"frames": torch.stack(list(last)), **rest}

            frames = self.keep_last_frames(chunks, last, skip=roll.context_frames)
            yield Part(latents, frames, handed_over)
            deque(frames, maxlen=0)  # decode the frames that were not read
            if self.interrupt:
                return
            condition, carried = frames_tensor(handed_over()["frames"]), rest.get("latents")
