"""image_to_video: a video that begins with an image (spec skyreels_v2 sections 7 and 8)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKLWan, SchedulerMixin
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPVisionModel, PreTrainedTokenizerBase, UMT5EncoderModel

from videogen.diffusion.conditioning import Segment
from videogen.media.image import crop_to_ratio
from videogen.models.wan.transformer import WanDiT
from videogen.pipelines.base import Part, StepCallback
from videogen.pipelines.pixels import image_tensor, truncated
from videogen.pipelines.wan import WanPipeline
from videogen.tasks.geometry import latent_frames

if TYPE_CHECKING:
    from videogen.pipelines import typed


class ImageToVideoPipeline(WanPipeline):
    """Image conditioning in two ways: channels beside the noise, and CLIP features beside the text.

    A last frame, which the published command line does not have, is passed as the first is; its CLIP features
    are seen by models that have positions for them.
    """

    task = "image_to_video"
    if TYPE_CHECKING:
        __call__ = typed.image_to_video
    to_uint8 = staticmethod(truncated)
    model_cpu_offload_seq = "image_encoder->text_encoder->transformer->vae"  # order of use

    def __init__(  # diffusers reads the component names from its signature
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: UMT5EncoderModel,
        image_encoder: CLIPVisionModel,
        vae: AutoencoderKLWan,
        transformer: WanDiT,
        scheduler: SchedulerMixin | None = None,
    ) -> None:
        super().__init__(tokenizer, text_encoder, vae, transformer, scheduler)
        self.register_modules(image_encoder=image_encoder)

    def entries_for_diffusers(self, folder: Path) -> Mapping[str, Any]:
        """Save the image processor that diffusers' pipeline takes, and return its entry."""
        if self.image_encoder is None:
            return {}
        side = self.image_encoder.config.image_size
        size = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
        CLIPImageProcessorPil(**size).save_pretrained(folder / "image_processor")
        return {"image_processor": ("transformers", "CLIPImageProcessor")}

    @torch.no_grad()
    def parts(  # noqa: PLR0913 - the arguments of the task, under diffusers' names
        self,
        prompt: str,
        input_image: Image.Image,
        *,
        height: int,
        width: int,
        num_frames: int,
        num_inference_steps: int,
        shift: float,
        sample_solver: str,
        guidance_scale: float,
        negative_prompt: str,
        end_image: Image.Image | None = None,
        generator: torch.Generator | None = None,
        callback_on_step_end: StepCallback | None = None,
    ) -> Iterator[Part]:
        """Yield one part.

        Draws from the generator: the noise [1, 16, F, h, w], and with lcm as much in every step; normal,
        float32.
        """
        # 1. The images: cropped to the video's ratio, scaled (Lanczos); the first is encoded twice.
        self.reset_cache(num_inference_steps)
        first = fitted(input_image, height, width)
        last = None if end_image is None else fitted(end_image, height, width)
        beside = self.encode_ends(first[:, :, None], None if last is None else last[:, :, None], num_frames)
        features = self.encode_clip(first)
        if last is not None and self.transformer.config.pos_embed_seq_len is not None:
            features = torch.cat([features, self.encode_clip(last)])  # which its embedding joins

        # 2. Text and noise.
        guided = self.text_guidance(prompt, negative_prompt, guidance_scale, exactly_one=True, image=features)
        noise = self.draw_noise(latent_frames(num_frames), height, width, generator)

        # 3. Denoise; the unconditional branch keeps the image.
        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            video = Segment(latents=latents, timestep=timestep, extra=beside)
            return self.guided_velocity([video], guided)

        solver = self.make_solver(sample_solver, num_inference_steps, shift, generator)
        latents = self.denoise(noise, solver, predict, callback_on_step_end)

        # 4. Decode as the frames are read.
        yield Part(latents, self.decode(latents))


def fitted(image: Image.Image, height: int, width: int) -> Tensor:
    """Return an image [1, 3, height, width], cropped to the video's ratio and scaled."""
    cropped = crop_to_ratio(image.convert("RGB"), width, height)
    return image_tensor(cropped.resize((width, height), Image.Resampling.LANCZOS))[None]
