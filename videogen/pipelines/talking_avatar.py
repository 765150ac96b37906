"""talking_avatar: a portrait that speaks, in segments, as long as the audio (spec talking_avatar)."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import torch
from diffusers import AutoencoderKLWan, SchedulerMixin
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionModel, PreTrainedTokenizerBase, UMT5EncoderModel, Wav2Vec2Model

from videogen.diffusion.conditioning import Context, Segment
from videogen.diffusion.guidance import ClassifierFree, DualGuidance, Guidance, SinglePass
from videogen.diffusion.sampling import Solver
from videogen.media.audio import InputAudio, waveform
from videogen.media.image import cover_bilinear
from videogen.models.wan.audio_encoder import audio_features, audio_windows
from videogen.models.wan.transformer import WanDiT
from videogen.pipelines.base import Part, StepCallback, seeded
from videogen.pipelines.color import match_color
from videogen.pipelines.pixels import image_tensor, record_frames, truncated
from videogen.pipelines.wan import MASK_CHANNELS, Guided, WanPipeline
from videogen.tasks.avatar_clips import TARGET_FRAMES, Clip, plan_clips
from videogen.tasks.geometry import latent_frames

if TYPE_CHECKING:
    from videogen.pipelines import typed

TARGET = "target_"  # prefix of keyframe numbers in a saved state


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Inputs of one segment in latents: channels ``beside`` the noise, contexts, and frames carried over."""

    guided: Guided
    beside: Tensor
    carried: int  # leading latent frames taken from the previous segment


class TalkingAvatarPipeline(WanPipeline):
    """Keyframe segment from the portrait, then the visible ones that move towards its frames.

    A visible segment starts with the portrait, or the last frames of the previous segment, and ends with its
    target frame.

    Draws from the generator, in order: per segment its noise [1, 16, F, h, w]; for every visible segment but
    the first, before its first step and after every step, noise for the latents carried over; all normal,
    float32.
    """

    task = "talking_avatar"
    if TYPE_CHECKING:
        __call__ = typed.talking_avatar
    to_uint8 = staticmethod(truncated)
    model_cpu_offload_seq = "audio_encoder->text_encoder->image_encoder->transformer->vae"
    cpu_encoders = ("audio_encoder",)

    def __init__(  # diffusers reads the component names from its signature
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: UMT5EncoderModel,
        image_encoder: CLIPVisionModel,
        audio_encoder: Wav2Vec2Model,
        vae: AutoencoderKLWan,
        transformer: WanDiT,
        scheduler: SchedulerMixin | None = None,
    ) -> None:
        super().__init__(tokenizer, text_encoder, vae, transformer, scheduler)
        self.register_modules(image_encoder=image_encoder, audio_encoder=audio_encoder)

    @torch.no_grad()
    def parts(  # noqa: PLR0913 - the arguments of the task, under diffusers' names
        self,
        prompt: str,
        input_image: Image.Image,
        input_audio: InputAudio,
        *,
        height: int,
        width: int,
        clip_frames: int,
        motion_frame: int,
        drop_frame: int,
        max_frames_num: int,
        num_inference_steps: int,
        shift: float,
        guidance_scale: float,
        guidance_scale_audio: float,
        negative_prompt: str,
        connection_prompt: str,
        generator: torch.Generator | None = None,
        callback_on_step_end: StepCallback | None = None,
        first: int = 0,
        state: Mapping[str, Tensor] | None = None,
    ) -> Iterator[Part]:
        """Yield one part per segment, keyframes first; ``state`` is of the part before segment ``first``."""
        # 1. The audio, the portrait, and how segments cover the audio; keyframes come first.
        rows = min(max_frames_num, input_audio.num_frames)
        plan = plan_clips(rows, clip_frames, motion=motion_frame, drop=drop_frame)
        clips = [Clip(start=0, keyframe=0, first=0, stop=rows), *plan.clips]
        heard = self.hear(input_audio, rows, plan.rows)
        portrait = image_tensor(cover_bilinear(input_image.convert("RGB"), width, height))[None, :, None]
        seen = prompt if connection_prompt.casefold() == "same" else connection_prompt
        scales, state = (guidance_scale, guidance_scale_audio), state or {}
        generator = continued(seeded(generator), state)

        for index, clip in list(enumerate(clips))[first:]:
            # 2. First frames, target frame, audio, text, noise.
            known = state.get("tail", portrait)
            target = state[f"{TARGET}{clip.keyframe}"].repeat(1, 1, TARGET_FRAMES, 1, 1) if index else None
            beside = self.encode_ends(known, target, clip_frames).to(self.model_dtype)  # as published
            windows = audio_windows(heard, clip.start, clip_frames).to(self._execution_device)
            text = seen if index > 0 else prompt
            guided = self.speech_guidance(text, negative_prompt, scales, known, windows)
            noise = self.draw_noise(latent_frames(clip_frames), height, width, generator)

            # 3. Denoise; the frames carried over from the previous segment are put back after every step.
            carried = latent_frames(motion_frame) if "tail" in state else 0
            scene = Scene(guided, beside, carried)
            solver = self.make_solver("euler", num_inference_steps, shift, generator)
            predict = partial(self.predict, scene)
            pin = partial(self.pin, scene, solver, generator) if carried else None
            latents = self.denoise(noise, solver, predict, callback_on_step_end, pin=pin)

            # 4. Decode in the portrait's colours; keyframes are only shown if there is nothing else.
            frames = self.decoded(latents, portrait)
            targeted = plan.clips if index == 0 and not self.interrupt else ()
            part = segment_part(latents, frames, clip, targeted, motion_frame, generator)
            yield part
            state = {**state, **part.finish()}
            if self.interrupt:
                return

    def hear(self, audio: InputAudio, rows: int, padded: int) -> Tensor:
        """Return an audio's feature rows, extended from ``rows`` to ``padded`` by the last ones in reverse.

        If nothing is padded, the last frames use audio after the end of the video, as published.
        """
        with self.stage("audio"):
            heard = audio_features(self.audio_encoder, waveform(audio), audio.num_frames)
        if padded == rows:
            return heard
        return torch.cat([heard[:rows], heard[:rows].flip(0)[: padded - rows]])

    def speech_guidance(
        self, text: str, negative_prompt: str, scales: tuple[float, float], known: Tensor, windows: Tensor
    ) -> Guided:
        """Return guidance by text, audio, both or none, and a context per branch (spec section 7)."""
        by_text, by_sound = scales[0] > 1, scales[1] > 1
        positive = self.embed(text)
        negative = self.embed(negative_prompt) if by_text else positive
        image, silence = self.encode_clip(known[:, :, 0]), torch.zeros_like(windows)
        guidance: Guidance = SinglePass()
        branches = {"cond": (positive, windows)}
        if by_text and by_sound:
            guidance = DualGuidance(*scales)
            branches |= {"no_text": (negative, windows), "uncond": (negative, silence)}
        elif by_text or by_sound:
            guidance = ClassifierFree(scales[0] if by_text else scales[1])
            branches["uncond"] = (negative, windows if by_text else silence)
        return guidance, {
            branch: Context(text=words, image=image, audio=audio)
            for branch, (words, audio) in branches.items()
        }

    def predict(self, scene: Scene, latents: Tensor, timestep: Tensor) -> Tensor:
        """Return the guided velocity of all frames."""
        video = Segment(latents=latents, timestep=timestep, extra=scene.beside)
        return self.guided_velocity([video], scene.guided)

    def pin(
        self, scene: Scene, solver: Solver, generator: torch.Generator, latents: Tensor, done: int
    ) -> Tensor:
        """Replace the carried frames by the known ones, with fresh noise of the current level."""
        level = float(solver.sigmas[done])
        carried = scene.beside[:, MASK_CHANNELS:, : scene.carried].float()
        carried = (1 - level) * carried + level * self.draw(carried.shape, generator).to(carried)
        return torch.cat([carried, latents[:, :, scene.carried :]], dim=2)

    def decoded(self, latents: Tensor, portrait: Tensor) -> Iterator[Tensor]:
        """Yield frames [1, 3, 1, H, W] one by one, in the portrait's colours, on the CPU."""
        for chunk in self.decode(latents):
            for frame in chunk.split(1, dim=2):
                with self.measured("colours"):
                    matched = match_color(frame, portrait).cpu()
                yield matched


def continued(generator: torch.Generator, state: Mapping[str, Tensor]) -> torch.Generator:
    """Return the generator in the state that the previous segment left, if there is one."""
    return generator.set_state(state["generator"]) if state else generator


def segment_part(
    latents: Tensor,
    frames: Iterator[Tensor],
    clip: Clip,
    targeted: Sequence[Clip],
    motion: int,
    generator: torch.Generator,
) -> Part:
    """Return a segment that shows its new frames; its state has the last ``motion`` of them.

    If it has the keyframes that clips have as targets, it shows none, and those are its state.
    """
    if targeted:
        wanted = {clip.keyframe for clip in targeted}
        kept = {f"{TARGET}{index}": frame for index, frame in enumerate(frames) if index in wanted}
        return Part(latents, iter(()), lambda: {**kept, "generator": generator.get_state()})
    last = deque[Tensor](maxlen=motion)
    shown = islice(record_frames(islice(frames, clip.stop), last), clip.first, None)
    return Part(
        latents, shown, lambda: {"tail": torch.cat([*last], dim=2), "generator": generator.get_state()}
    )
