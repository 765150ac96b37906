"""Base of the Wan family's pipelines: components, text, noise, network call, decoding."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from diffusers import AutoencoderKLWan, SchedulerMixin
from diffusers.loaders import WanLoraLoaderMixin
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionModel, PreTrainedTokenizerBase, UMT5EncoderModel

from videogen.diffusion.conditioning import Context, Segment, pack, unpack
from videogen.diffusion.guidance import ClassifierFree, Guidance, SinglePass
from videogen.errors import InputError
from videogen.media.video_reader import InputVideo
from videogen.models.wan import vae as vae_io
from videogen.models.wan.image_encoder import clip_features
from videogen.models.wan.text import TEXT_ROWS, encode_prompt
from videogen.models.wan.transformer import WanDiT
from videogen.pipelines.base import VideoPipeline
from videogen.pipelines.color import match_color
from videogen.pipelines.lora import LoraMixin
from videogen.pipelines.pixels import image_tensor
from videogen.tasks.geometry import TIME_STRIDE

MASK_CHANNELS = 4  # one per video frame of a latent frame

Guided = tuple[Guidance, Mapping[str, Context]]
"""Guidance, and a context per branch."""


class WanPipeline(LoraMixin, VideoPipeline, WanLoraLoaderMixin):
    """Base of the Wan family's pipelines."""

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    image_encoder: CLIPVisionModel | None = None  # of models that see the image besides; as in diffusers
    image_processor = None  # nobody has one, because the published code prepares images in its own way

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: UMT5EncoderModel,
        vae: AutoencoderKLWan,
        transformer: WanDiT,
        scheduler: SchedulerMixin | None = None,
    ) -> None:
        super().__init__(scheduler)
        self.register_modules(
            tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, transformer=transformer
        )

    def embed(self, prompt: str | Tensor) -> Tensor:
        """Return a prompt's embedding [1, 512, text_dim] on the device; recent prompts are cached.

        Raises:
            InputError: there is no text encoder.
        """
        if isinstance(prompt, Tensor):
            wide = self.transformers[0].config.text_dim if self.transformers else prompt.shape[-1]
            if prompt.shape[-1] != wide:
                what = f"must be [prompts, rows, {wide}]"
                raise InputError("prompt_embeds=", list(prompt.shape), what, "see encode_prompt")
            return prompt.to(self._execution_device, self.model_dtype)
        if self.text_encoder is None:
            fix = "give prompt_embeds=, and with guidance negative_prompt_embeds="
            raise InputError("prompt=", prompt, "this pipeline has no text encoder", fix)
        rows = self._state.max_sequence_length or TEXT_ROWS
        make = partial(encode_prompt, self.tokenizer, self.text_encoder, prompt, self._execution_device, rows)
        key = prompt if rows == TEXT_ROWS else f"{rows} rows {prompt}"
        return self.cached_embedding("text_encoder", key, make).to(self.model_dtype)

    @torch.no_grad()
    def encode_prompt(
        self,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        do_classifier_free_guidance: bool = True,
        num_videos_per_prompt: int = 1,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        max_sequence_length: int | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return prompts as the calls' ``prompt_embeds`` and ``negative_prompt_embeds``, as diffusers does.

        Args:
            prompt: one or several.
            negative_prompt: one or several; none is the empty text.
            do_classifier_free_guidance: False makes no negative ones.
            num_videos_per_prompt: copies of each, in a row.
            prompt_embeds: returned as they are, in place of encoded prompts; likewise negative ones.
            max_sequence_length: rows of each, 512 as published unless given.
            device: of what is returned; dtype likewise.
        """
        self._state.max_sequence_length = max_sequence_length
        embed = partial(self._embed_all, copies=num_videos_per_prompt, device=device, dtype=dtype)
        if prompt_embeds is None and prompt is not None:
            prompt_embeds = embed(prompt)
        if negative_prompt_embeds is None and do_classifier_free_guidance:
            count = 1 if prompt_embeds is None else len(prompt_embeds) // num_videos_per_prompt
            negatives = negative_prompt or ""
            negative_prompt_embeds = embed([negatives] * count if isinstance(negatives, str) else negatives)
        self._state.max_sequence_length = None
        return prompt_embeds, negative_prompt_embeds

    def _embed_all(
        self,
        texts: str | Sequence[str],
        *,
        copies: int,
        device: torch.device | None,
        dtype: torch.dtype | None,
    ) -> Tensor:
        """Return embeddings of texts, ``copies`` of each in a row."""
        rows = torch.cat([self.embed(text) for text in ([texts] if isinstance(texts, str) else texts)])
        return rows.repeat_interleave(copies, 0).to(device=device, dtype=dtype)

    def text_guidance(
        self,
        prompt: str | Tensor,
        negative_prompt: str | Tensor,
        scale: float,
        *,
        exactly_one: bool = False,
        **beside: Tensor | None,
    ) -> Guided:
        """Return classifier-free guidance (a single pass if the scale is 1 or less), a context per branch.

        Args:
            prompt: text of the branch 'cond'.
            negative_prompt: text of the branch 'uncond'.
            scale: guidance scale.
            exactly_one: only a scale of 1 is a single pass, and not with a step cache that counts pairs.
            beside: inputs of both contexts besides the text.
        """
        contexts = {"cond": Context(text=self.embed(prompt), **beside)}
        paired = self.step_cache is not None and self.step_cache.needs_pairs
        if (scale == 1 and not paired) if exactly_one else scale <= 1:
            return SinglePass(), contexts
        contexts["uncond"] = Context(text=self.embed(negative_prompt), **beside)
        return ClassifierFree(scale), contexts

    def draw_noise(
        self, latent_frames: int, height: int, width: int, generator: torch.Generator | None
    ) -> Tensor:
        """Draw normal noise [1, C, F, h, w], float32, on the generator's device."""
        if self.vae is None:
            if self._state.noise is None:
                raise InputError("vae", None, "is None, and says the size of latents", "give latents=")
            return self.draw(self._state.noise.shape, generator)
        stride = self.vae.spatial_compression_ratio
        shape = (1, self.vae.config.z_dim, latent_frames, height // stride, width // stride)
        return self.draw(shape, generator)

    def encode_image(
        self, image: Image.Image, *, sample: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """Encode an RGB image to a latent frame [1, C, 1, h, w]: its posterior sampled, or the mean."""
        return self.encode_video(image_tensor(image)[None, :, None], sample=sample, generator=generator)

    def encode_video(
        self, video: Tensor, *, sample: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """Encode video [1, 3, 4k+1, H, W] in [-1, 1] to latents [1, C, k+1, h, w]."""
        with self.stage("vae encode"):
            return vae_io.encode(self.vae, video, sample=sample, generator=generator)

    def encode_clip(self, image: Tensor) -> Tensor:
        """Return the CLIP features of an image [1, 3, H, W], of pipelines with an image encoder."""
        with self.stage("clip"):
            features = clip_features(self.image_encoder, image.to(self._execution_device))
            return features.to(self.model_dtype)

    def encode_ends(self, first: Tensor, last: Tensor | None, num_frames: int) -> Tensor:
        """Encode known first and last frames [1, 3, f, H, W] to [1, 20, F, h, w]: their mask, then latents.

        Unknown frames are grey (0) before encoding.
        """
        last = first[:, :, :0] if last is None else last
        between = num_frames - first.shape[2] - last.shape[2]
        grey = first.new_zeros(1, 3, between, *first.shape[3:])
        latents = self.encode_video(torch.cat([first, grey, last], dim=2))
        mask = known_mask(first.shape[2], last.shape[2], num_frames, latents.device)
        return torch.cat([mask[None, :, :, None, None].expand_as(latents[:, :MASK_CHANNELS]), latents], dim=1)

    @property
    def model_dtype(self) -> torch.dtype:
        """Dtype in which the transformer computes."""
        models = self.transformers
        return models[0].patch_embedding.weight.dtype if models else self.text_encoder.dtype

    def velocity(
        self,
        segments: Sequence[Segment],
        context: Context,
        branch: str,
        which: int = 0,
        *,
        visible_frames: Sequence[int] | None = None,
        model: WanDiT | None = None,
    ) -> Tensor:
        """Return the prediction of the transformer (or ``model``) for one of the segments [1, C, F, h, w]."""
        model = model or self.transformer
        packed, dtype = pack(segments), model.patch_embedding.weight.dtype
        with model.cache_context(branch):
            (output,) = model(
                hidden_states=packed.latents.to(dtype),
                timestep=packed.timestep,
                encoder_hidden_states=self._state.text(branch, context.text).to(dtype),
                encoder_hidden_states_image=None if context.image is None else context.image.to(dtype),
                encoder_hidden_states_audio=None if context.audio is None else context.audio.to(dtype),
                fps=context.fps,
                frame_positions=packed.positions,
                visible_frames=visible_frames,
                attention_kwargs=self.attention_kwargs,
                return_dict=False,
            )
        return unpack(output, segments)[which]

    def guided_velocity(
        self,
        segments: Sequence[Segment],
        guided: Guided,
        which: int = 0,
        *,
        visible_frames: Sequence[int] | None = None,
        model: WanDiT | None = None,
    ) -> Tensor:
        """Return the velocities of all branches (see ``velocity``), combined."""
        guidance, contexts = guided
        return self.guide(
            guidance,
            lambda branch: self.velocity(
                segments, contexts[branch], branch, which, visible_frames=visible_frames, model=model
            ),
        )

    def decode(self, latents: Tensor, reference: Tensor | None = None) -> Iterator[Tensor]:
        """Decode latents to video [1, 3, f, H, W] in [-1, 1], one latent frame at a time.

        If a ``reference`` [1, 3, 1, H', W'] is given, in its colours.
        """
        chunks = self.timed(vae_io.decode_stream(self.vae, latents), "decode")
        return chunks if reference is None else (match_color(chunk, reference) for chunk in chunks)


def known_mask(first: int, last: int, num_frames: int, device: torch.device) -> Tensor:
    """Return 1 for known frames and 0 for others [4, F], by their place in a latent frame.

    Known are the ``first`` and the ``last`` ones. The first latent frame covers one frame, four times.
    """
    known = torch.zeros(num_frames, device=device)
    known[:first] = known[num_frames - last :] = 1
    return torch.cat([known[:1].repeat(TIME_STRIDE), known[1:]]).view(-1, TIME_STRIDE).T


def first_frame(image: Image.Image | None, video: InputVideo | None) -> Image.Image | None:
    """Return the first frame of a video: an image, or the last frame of another video."""
    if image is not None:
        return image.convert("RGB")
    return None if video is None else Image.fromarray(video.tail(1)[0])
