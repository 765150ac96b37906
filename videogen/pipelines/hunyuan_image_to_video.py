"""hunyuan_image_to_video: a video that begins with an image (spec hunyuan sections 3 to 9)."""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from diffusers import AutoencoderKLHunyuanVideo, SchedulerMixin
from diffusers.loaders import HunyuanVideoLoraLoaderMixin
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import CLIPImageProcessorPil, CLIPTextModel, LlavaModel, PreTrainedTokenizerBase

from videogen.diffusion.guidance import ClassifierFree, SinglePass
from videogen.errors import CallError
from videogen.media.image import crop_bilinear
from videogen.models.device_copies import to_device
from videogen.models.hunyuan import text as hunyuan_text
from videogen.models.hunyuan import transformer as hunyuan
from videogen.models.wan.vae import onload
from videogen.pipelines.base import Part, StepCallback, VideoPipeline
from videogen.pipelines.lora import LoraMixin
from videogen.pipelines.pixels import image_tensor, truncated

if TYPE_CHECKING:
    from videogen.pipelines import typed

logger = logging.getLogger(__name__)

INTERLEAVE = {"token_replace": 4, "latent_concat": 2}  # every n-th image token is used
STABLE = 0.001  # weight of the image in the noise
DROPPED = 4  # leading frames that only show the image, dropped


Encoded = tuple[Tensor, Tensor]
"""A prompt's rows [1, T, dim], image rows first, and its summary [1, dim]."""


class HunyuanImageToVideoPipeline(LoraMixin, VideoPipeline, HunyuanVideoLoraLoaderMixin):
    """Image-to-video by token replacement or latent concatenation.

    The image is the first latent frame and stays so, or its latents are channels beside the noise.

    The transformer's config selects the mode.
    """

    task = "hunyuan_image_to_video"
    if TYPE_CHECKING:
        __call__ = typed.hunyuan_image_to_video
    to_uint8 = staticmethod(truncated)
    model_cpu_offload_seq = "text_encoder->text_encoder_2->transformer->vae"
    always_tiled = True
    call_names: ClassVar = {"true_cfg_scale": "guidance_scale", "guidance_scale": "embedded_cfg_scale"}
    embeddings = ("prompt_embeds", "pooled_prompt_embeds", "prompt_attention_mask")

    def __init__(  # diffusers reads the component names from its signature
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: LlavaModel,
        image_processor: CLIPImageProcessorPil,
        tokenizer_2: PreTrainedTokenizerBase,
        text_encoder_2: CLIPTextModel,
        vae: AutoencoderKLHunyuanVideo,
        transformer: hunyuan.HunyuanDiT,
        scheduler: SchedulerMixin | None = None,
    ) -> None:
        super().__init__(scheduler)
        self.register_modules(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            image_processor=image_processor,
            tokenizer_2=tokenizer_2,
            text_encoder_2=text_encoder_2,
            vae=vae,
            transformer=transformer,
        )
        if transformer is not None:
            hunyuan.install_layers(self.transformer)
        hunyuan.install_layers(self.transformer)

    @torch.no_grad()
    def parts(  # noqa: PLR0913 - the arguments of the task, under diffusers' names
        self,
        prompt: str | Encoded,
        input_image: Image.Image,
        *,
        height: int,
        width: int,
        latent_frames: int,
        num_inference_steps: int,
        shift: float,
        guidance_scale: float,
        embedded_cfg_scale: float | None,
        i2v_stability: bool,
        no_riflex: bool,
        negative_prompt: str | Encoded,
        prompt_template: Mapping[str, Any] | None = None,
        generator: torch.Generator | None = None,
        callback_on_step_end: StepCallback | None = None,
    ) -> Iterator[Part]:
        """Yield one part. Draws from the generator: the noise [1, 16, F, h, w], normal, float32."""
        # 1. Encode the image; draw noise and mix in a little of the image if asked.
        image = input_image.convert("RGB")
        first = self.encode_image(crop_bilinear(image, width, height))
        noise = self.draw((1, first.shape[1], latent_frames, *first.shape[3:]), generator)
        if i2v_stability:
            noise = noise * (1 - STABLE) + first * STABLE

        # 2. Encode text and image for every branch; the negative branch gets a black image.
        branches = {"cond": (prompt, image)}
        if guidance_scale > 1:
            branches["uncond"] = (negative_prompt, Image.new("RGB", image.size))
        guidance = ClassifierFree(guidance_scale) if guidance_scale > 1 else SinglePass()
        template = prompt_template or hunyuan_text.TEMPLATE
        rows = {branch: self.encode(*read, template) for branch, read in branches.items()}
        summaries = {branch: self.summarize(text) for branch, (text, _) in branches.items()}

        # 3. Denoise; the first frame is put back, or the image is concatenated.
        concat = self.transformer.config.image_condition_type == "latent_concat"
        known = torch.cat([first, torch.ones_like(first[:, :1])], dim=1)
        beside = functional.pad(known, (0, 0, 0, 0, 0, latent_frames - 1))
        self.transformer.rope.riflex = not no_riflex
        if why := self.transformer.rope.inactive_reason(latent_frames):
            logger.warning(why)

        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            seen = torch.cat([latents, beside], dim=1) if concat else latents
            velocity = partial(self.velocity, seen, timestep, embedded_cfg_scale)
            return self.guide(guidance, lambda branch: velocity(branch, rows[branch], summaries[branch]))

        def pin(latents: Tensor, _: int) -> Tensor:
            return torch.cat([first, latents[:, :, 1:]], dim=2)

        last = 1 / num_inference_steps
        solver = self.make_solver("euler", num_inference_steps, shift, generator, sigma_min=last)
        put_back, shown = (None, 0) if concat else (pin, 1)
        latents = self.denoise(noise, solver, predict, callback_on_step_end, pin=put_back, known=shown)

        # 4. Decode as the frames are read.
        frames = self.decode(latents)
        yield Part(latents, _after(frames, DROPPED) if concat else frames)

    def encode_image(self, image: Image.Image) -> Tensor:
        """Encode an RGB image to a latent frame [1, 16, 1, h, w]."""
        with self.stage("vae encode"):
            return hunyuan.encode_image(self.vae, image_tensor(image)[None, :, None], onload)

    @torch.no_grad()
    def encode_prompt(
        self,
        image: Image.Image,
        prompt: str | Sequence[str],
        num_videos_per_prompt: int = 1,
        max_sequence_length: int | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return a call's ``prompt_embeds``, ``pooled_prompt_embeds`` and ``prompt_attention_mask``.

        Args:
            image: which the text encoder sees as well; a black one for ``negative_...``.
            prompt: one or several.
            num_videos_per_prompt: copies of each, in a row.
            max_sequence_length: tokens of a prompt, as published unless given.
        """
        texts, image = [prompt] if isinstance(prompt, str) else prompt, image.convert("RGB")
        self._state.max_sequence_length = max_sequence_length
        rows = [self.encode(text, image)[0] for text in texts]
        self._state.max_sequence_length = None
        masks = [torch.ones(len(each), dtype=torch.long, device=each.device) for each in rows]
        encoded = (
            pad_sequence(rows, True),
            torch.cat([*map(self.summarize, texts)]),
            pad_sequence(masks, True),
        )
        together, summaries, mask = (each.repeat_interleave(num_videos_per_prompt, 0) for each in encoded)
        return together, summaries, mask

    def encoded_prompts(self, encoded: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return encoded prompts as ``prompt`` and ``negative_prompt`` of ``parts``: rows, and their summary.

        Raises:
            InputError: one without the other.
        """
        found: dict[str, Any] = {}
        for sign in ("", "negative_"):
            rows, summary = (encoded.get(f"{sign}{name}") for name in self.embeddings[:2])
            if (rows is None) != (summary is None):
                names = " and ".join(f"{sign}{name}=" for name in self.embeddings[:2])
                raise CallError(names, None, "belong together", "give both")
            if rows is not None and summary is not None:
                mask = encoded.get(f"{sign}prompt_attention_mask")
                found[f"{sign}prompt"] = (rows if mask is None else rows[:, mask[0].bool()], summary)
        return found

    def encode(
        self, prompt: str | Encoded, image: Image.Image, template: Mapping[str, Any] = hunyuan_text.TEMPLATE
    ) -> Tensor:
        """Return rows [1, T, dim] of an image and a prompt."""
        if not isinstance(prompt, str):
            return prompt[0].to(self._execution_device)
        prompt, limit = prompt.strip(), self._state.max_sequence_length or hunyuan_text.TEXT_TOKENS
        interleave = INTERLEAVE[self.transformer.config.image_condition_type]
        components = self.tokenizer, self.image_processor, self.text_encoder
        device = self._execution_device
        rows = partial(
            hunyuan_text.encode_prompt,
            *components,
            prompt,
            image,
            interleave=interleave,
            device=device,
            template=template,
            rows=limit,
        )
        published = template == hunyuan_text.TEMPLATE and limit == hunyuan_text.TEXT_TOKENS
        said = prompt if published else f"{limit} {dict(template)} {prompt}"
        seen = hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).hexdigest()
        return self.cached_embedding("text_encoder", f"{interleave} {seen} {said}", rows)

    def summarize(self, prompt: str | Encoded) -> Tensor:
        """Return the pooled embedding of a prompt [1, dim]."""
        if not isinstance(prompt, str):
            return prompt[1].to(self._execution_device)
        prompt = prompt.strip()
        components = self.tokenizer_2, self.text_encoder_2
        summary = partial(hunyuan_text.encode_summary, *components, prompt, device=self._execution_device)
        return self.cached_embedding("text_encoder_2", prompt, summary)

    def velocity(
        self,
        latents: Tensor,
        timestep: Tensor,
        embedded_cfg_scale: float | None,
        branch: str,
        rows: Tensor,
        summary: Tensor,
    ) -> Tensor:
        """Return the transformer's prediction [1, 16, F, h, w]."""
        model, rows = self.transformer, self._state.text(branch, rows)
        dtype, device = model.x_embedder.proj.weight.dtype, latents.device
        scale = None
        if model.config.guidance_embeds:
            scale = to_device(torch.tensor([embedded_cfg_scale], dtype=dtype) * 1000, device)
        with model.cache_context(branch):
            (velocity,) = model(
                hidden_states=latents.to(dtype),
                timestep=to_device(timestep[None], device),
                encoder_hidden_states=rows.to(dtype),
                encoder_attention_mask=torch.ones(rows.shape[:2], dtype=torch.long, device=device),
                pooled_projections=summary.to(dtype),
                guidance=scale,
                attention_kwargs=self.attention_kwargs,
                return_dict=False,
            )
        return velocity

    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """Decode latents to video [1, 3, f, H, W] in about [-1, 1], one temporal tile at a time."""
        return self.timed(hunyuan.decode_stream(self.vae, latents, onload), "decode")


def _after(chunks: Iterator[Tensor], count: int) -> Iterator[Tensor]:
    """Yield the frames without the first ``count``."""
    for chunk in chunks:
        rest, count = chunk[:, :, count:], max(0, count - chunk.shape[2])
        if rest.shape[2]:
            yield rest
