"""Wan2.2 A14B: text_to_video, image_to_video and v2v-14B with two experts (spec wan22 sections 5, 7, 14)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from diffusers import AutoencoderKLWan, SchedulerMixin
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from videogen.diffusion.conditioning import Context, Segment
from videogen.diffusion.guidance import ClassifierFree, SinglePass
from videogen.diffusion.sampling import NUM_TRAIN_TIMESTEPS
from videogen.errors import CallError
from videogen.media.video_reader import InputVideo
from videogen.models.wan.transformer import WanDiT
from videogen.pipelines.base import Part, StepCallback
from videogen.pipelines.pixels import image_tensor, truncated
from videogen.pipelines.wan import WanPipeline, first_frame
from videogen.tasks.geometry import latent_frames
from videogen.tasks.options import OPTIONS

if TYPE_CHECKING:
    from videogen.pipelines import typed


class Wan22A14BPipeline(WanPipeline):
    """Wan2.2 A14B with an expert for high noise (``transformer``) and one for low (``transformer_2``).

    A first frame (the image, or the last frame of a video) is passed as channels beside the noise, and so is
    a last frame, which the published command line does not have; diffusers' pipeline encodes both alike.
    """

    task, family = "image_to_video", "Wan2.2 A14B"
    if TYPE_CHECKING:
        __call__ = typed.wan22_a14b
    to_uint8 = staticmethod(truncated)
    model_cpu_offload_seq = "text_encoder->transformer->transformer_2->vae"
    _optional_components: ClassVar = ["transformer", "transformer_2"]  # one is enough

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: UMT5EncoderModel,
        vae: AutoencoderKLWan,
        transformer: WanDiT,
        transformer_2: WanDiT,
        scheduler: SchedulerMixin | None = None,
    ) -> None:
        super().__init__(tokenizer, text_encoder, vae, transformer, scheduler)
        self.register_modules(transformer_2=transformer_2)

    def entries_for_diffusers(self, folder: Path) -> Mapping[str, Any]:
        """Return the noise level that divides the experts' work; one alone does all of it."""
        del folder
        if self.transformer is None:
            return {"boundary_ratio": 1.0}
        alone = self.transformer_2 is None
        return {"boundary_ratio": None if alone else self.row_for({}).defaults(self.checkpoint)["boundary"]}

    def complete(self, given: Mapping[str, object]) -> dict[str, object]:
        """Fill in defaults; ``guidance_scale_2`` is diffusers' name of the scale for low noise."""
        if (low := given.get("guidance_scale_2")) is None:
            return super().complete(given)
        if isinstance(given.get("guidance_scale"), list | tuple):
            what = "is the first scale of guidance_scale=, which gives both"
            raise CallError("guidance_scale_2=", low, what, "give one scale in each")
        low, _ = OPTIONS["guidance_scale"].value((low, low))
        return super().complete({**given, "guidance_scale_2": low})

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
        guidance_scale: float | tuple[float, float],
        negative_prompt: str,
        boundary: float,
        input_image: Image.Image | None = None,
        end_image: Image.Image | None = None,
        input_video: InputVideo | None = None,
        color_match: bool = False,
        guidance_scale_2: float | None = None,
        generator: torch.Generator | None = None,
        callback_on_step_end: StepCallback | None = None,
    ) -> Iterator[Part]:
        """Yield one part.

        Draws from the generator: the noise [1, 16, F, h, w], and with lcm as much in every step; normal,
        float32.
        """
        # 1. Noise; first frame, last frame, text.
        noise = self.draw_noise(latent_frames(num_frames), height, width, generator)
        beside = None
        if (image := first_frame(input_image, input_video)) is not None:
            last = None if end_image is None else stretched(end_image.convert("RGB"), height, width)
            beside = self.encode_ends(stretched(image, height, width), last, num_frames)
        contexts = {
            "cond": Context(text=self.embed(prompt)),
            "uncond": Context(text=self.embed(negative_prompt)),
        }

        # 2. Denoise; the noise level selects the expert, and both share the solver's history.
        low, high = guidance_scale if isinstance(guidance_scale, tuple) else (guidance_scale, guidance_scale)
        low = low if guidance_scale_2 is None else guidance_scale_2

        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            noisy = bool(timestep >= boundary * NUM_TRAIN_TIMESTEPS)
            expert, scale = (self.transformer, high) if noisy else (self.transformer_2, low)
            guidance = SinglePass() if scale == 1 else ClassifierFree(scale)
            video = Segment(latents=latents, timestep=timestep, extra=beside)
            model = expert or self.transformers[0]  # of one expert alone, it takes every step
            return self.guided_velocity([video], (guidance, contexts), model=model)

        # Euler is for distilled weights, which know the levels 1, 3/4, 1/2 and 1/4 of four steps.
        levels = {"sigma_min": 1 / num_inference_steps} if sample_solver == "euler" else {}
        solver = self.make_solver(sample_solver, num_inference_steps, shift, generator, **levels)
        latents = self.denoise(noise, solver, predict, callback_on_step_end)

        # 3. Decode as the frames are read.
        reference = image_tensor(image)[None, :, None] if color_match and image is not None else None
        yield Part(latents, self.decode(latents, reference))


def stretched(image: Image.Image, height: int, width: int) -> Tensor:
    """Return an RGB image [1, 3, 1, height, width], stretched (bicubic, no antialiasing, no clamping)."""
    pixels = image_tensor(image)[None]
    return functional.interpolate(pixels, size=(height, width), mode="bicubic", align_corners=False)[
        :, :, None
    ]
