"""talking_avatar: a portrait that speaks, in segments, as long as the audio (spec talking_avatar)."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from diffusers import AutoencoderKLWan
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionModel, PreTrainedTokenizerBase, UMT5EncoderModel, Wav2Vec2Model

from videogen.diffusion.conditioning import Context, Segment
from videogen.diffusion.guidance import ClassifierFree, DualGuidance, Guidance, SinglePass
from videogen.diffusion.sampling import Solver, denoise, euler
from videogen.media.audio import InputAudio, waveform
from videogen.media.image import cover_bilinear
from videogen.models.wan.audio_encoder import audio_features, audio_windows
from videogen.models.wan.image_encoder import clip_features
from videogen.models.wan.transformer import WanDiT
from videogen.pipelines.base import Part, StepCallback, seeded
from videogen.pipelines.color import match_color
from videogen.pipelines.pixels import image_tensor, truncated
from videogen.pipelines.wan import MASK_CHANNELS, WanPipeline
from videogen.tasks.avatar_clips import TARGET_FRAMES, plan_clips
from videogen.tasks.geometry import latent_frames

TARGET = "target_"  # prefix of keyframe numbers in a saved state


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scene:
    """Inputs of one segment in latents: channels ``beside`` the noise, contexts, and frames carried over."""

    guided: tuple[Guidance, Mapping[str, Context]]
    beside: Tensor
    carried: int  # leading latent frames taken from the previous segment


class TalkingAvatarPipeline(WanPipeline):
    """Keyframe segment from the portrait, then the visible ones that move towards its frames.

    A visible segment starts with the portrait, or the last frames of the previous segment, and ends with its
    target frame.
    """

    task = "talking_avatar"
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
    ) -> None:
        super().__init__(tokenizer, text_encoder, vae, transformer)
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
        """Yield one part per segment, keyframes first; from ``first`` on, ``state`` is the previous part's.

        Draws from the generator, in order: per segment its noise [1, 16, F, h, w]; for every visible segment
        but the first, before its first step and after every step, noise for the latents carried over; all
        normal, float32.
        """
        # 1. Encode the audio, the portrait, and the texts of keyframes and video.
        rows = min(max_frames_num, input_audio.num_frames)
        plan = plan_clips(rows, clip_frames, motion=motion_frame, drop=drop_frame)
        heard = self.hear(input_audio, rows, plan.rows)
        portrait = image_tensor(cover_bilinear(input_image.convert("RGB"), width, height))[None, :, None]
        seen = prompt if connection_prompt.casefold() == "same" else connection_prompt
        scales, generator = (guidance_scale, guidance_scale_audio), seeded(generator)

        def made(text: str, start: int, known: Tensor, target: Tensor | None, carried: int) -> Tensor:
            beside = self.encode_ends(known, target, clip_frames).to(self.model_dtype)  # as published
            windows = audio_windows(heard, start, clip_frames).to(self._execution_device)
            guided = self.speech_guidance(text, negative_prompt, scales, known, windows)
            noise = self.draw_noise(latent_frames(clip_frames), height, width, generator)
            scene = Scene(guided=guided, beside=beside, carried=carried)
            solver = euler(num_inference_steps, shift)
            pin = partial(self.pin, scene, solver, generator) if carried else None
            with self.steps(len(solver.timesteps), callback_on_step_end) as on_step:
                return denoise(
                    noise, solver.timesteps, partial(self.predict, scene), solver.step, pin, on_step
                )

        # 2. Generate the keyframe segment; shown only if it is the only one.
        if state is None:
            latents = made(prompt, 0, portrait, None, 0)
            frames = self.decoded(latents)
            if self.interrupt or not plan.clips:
                yield Part(latents, (self.matched(frame, portrait) for frame in islice(frames, rows)))
                return
            wanted = {clip.keyframe for clip in plan.clips}
            state = {
                f"{TARGET}{index}": self.matched(frame, portrait)
                for index, frame in enumerate(frames)
                if index in wanted
            }
            yield Part(latents, iter(()), lambda: {**state, "generator": generator.get_state()})
        else:
            generator.set_state(state["generator"])

        # 3. Generate the visible segments, each from the portrait or the last frames to its target frame.
        tail = state.get("tail")
        for clip in plan.clips[max(0, first - 1) :]:
            if self.interrupt:
                return
            known, carried = (tail, latent_frames(motion_frame)) if tail is not None else (portrait, 0)
            target = state[f"{TARGET}{clip.keyframe}"].repeat(1, 1, TARGET_FRAMES, 1, 1)
            latents = made(seen, clip.start, known, target, carried)
            last: deque[Tensor] = deque(maxlen=motion_frame)
            used = islice(self.decoded(latents), clip.stop)
            frames = _record_frames((self.matched(frame, portrait) for frame in used), last)
            yield Part(
                latents,
                islice(frames, clip.first, None),
                lambda last=last: {"tail": torch.cat([*last], dim=2), "generator": generator.get_state()},  # type: ignore[misc]
            )
            for _ in frames:  # decode the frames that were not read
                pass
            tail = torch.cat([*last], dim=2)

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
    ) -> tuple[Guidance, dict[str, Context]]:
        """Return guidance by text, audio, both or none, and a context per branch (spec section 7)."""
        by_text, by_sound = scales[0] > 1, scales[1] > 1
        texts = {name: self.encode_prompt(name) for name in (text, *([negative_prompt] if by_text else []))}
        with self.stage("clip"):
            image = clip_features(self.image_encoder, known[:, :, 0].to(self._execution_device))
            image = image.to(self.model_dtype)
        silence = torch.zeros_like(windows)

        def context(prompt: str, audio: Tensor) -> Context:
            return Context(text=texts[prompt], image=image, audio=audio)

        contexts = {"cond": context(text, windows)}
        if by_text and by_sound:
            contexts["no_text"] = context(negative_prompt, windows)
            contexts["uncond"] = context(negative_prompt, silence)
            return DualGuidance(*scales), contexts
        if by_text:
            contexts["uncond"] = context(negative_prompt, windows)
        elif by_sound:
            contexts["uncond"] = context(text, silence)
        else:
            return SinglePass(), contexts
        return ClassifierFree(scales[0] if by_text else scales[1]), contexts

    def predict(self, scene: Scene, latents: Tensor, timestep: Tensor) -> Tensor:
        """Return the guided velocity of all frames."""
        guidance, contexts = scene.guided
        video = Segment(latents=latents, timestep=timestep, extra=scene.beside)
        return self.guide(guidance, lambda branch: self.velocity([video], contexts[branch], branch))

    def pin(
        self, scene: Scene, solver: Solver, generator: torch.Generator, latents: Tensor, done: int
    ) -> Tensor:
        """Replace the carried frames by the known ones, with fresh noise of the current level."""
        level = float(solver.sigmas[done])
        carried = scene.beside[:, MASK_CHANNELS:, : scene.carried].float()
        carried = (1 - level) * carried + level * self.draw(carried.shape, generator).to(carried)
        return torch.cat([carried, latents[:, :, scene.carried :]], dim=2)

    def decoded(self, latents: Tensor) -> Iterator[Tensor]:
        """Yield frames [1, 3, 1, H, W] one by one."""
        for chunk in self.decode(latents):
            yield from chunk.split(1, dim=2)

    def matched(self, frame: Tensor, portrait: Tensor) -> Tensor:
        """Return a frame in the portrait's colours, on the CPU."""
        with self.stage("colours"):
            return match_color(frame, portrait).cpu()


def _record_frames(frames: Iterator[Tensor], last: deque[Tensor]) -> Iterator[Tensor]:
    """Yield the frames and append them to ``last``."""
    for frame in frames:
        last.append(frame)
        yield frame
