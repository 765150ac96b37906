"""``videogen.load`` by task, and options of ``videogen.generate``; written by ``python -m tests.structure.write_stubs``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, overload

import numpy
import PIL.Image
import torch

from videogen.pipelines.base import VideoPipeline
from videogen.pipelines.diffusion_forcing import DiffusionForcingPipeline
from videogen.pipelines.hunyuan_image_to_video import HunyuanImageToVideoPipeline
from videogen.pipelines.image_to_video import ImageToVideoPipeline
from videogen.pipelines.reference_to_video import ReferenceToVideoPipeline
from videogen.pipelines.shot_switching_extension import ShotSwitchingExtensionPipeline
from videogen.pipelines.single_shot_extension import SingleShotExtensionPipeline
from videogen.pipelines.talking_avatar import TalkingAvatarPipeline
from videogen.pipelines.text_to_video import TextToVideoPipeline
from videogen.pipelines.wan22_5b import Wan22TI2V5BPipeline
from videogen.pipelines.wan22_a14b import Wan22A14BPipeline

TaskName = Literal[
    "reference_to_video",
    "single_shot_extension",
    "shot_switching_extension",
    "talking_avatar",
    "text_to_video",
    "image_to_video",
    "diffusion_forcing",
    "v2v-14B",
    "v2v-5B",
    "hunyuan_image_to_video",
]

class VideoOptions(TypedDict, total=False):
    """Options of a video; which ones a task uses says the command line's ``--help``."""

    negative_prompt: str | None
    """what it should not show; used when guidance is on"""
    neg_prompt: str | None
    """negative_prompt, as published commands call it"""
    roll_prompts: str | Path | Sequence[str] | None
    """a text file with a prompt per line, one for every segment"""
    prompt_enhancer: str | Path | bool | None
    """let a chat model make the prompt longer first"""
    captioner: bool | None
    """let models write the prompt from the input video"""
    vlm_path: str | Path | None
    """model that describes the input video"""
    vlm_device: str | torch.device | None
    """device of the models that write prompts; --device unless given"""
    custom_prompt: str | None
    """put in front of the description of the input video"""
    ref_imgs: (
        str
        | Path
        | PIL.Image.Image
        | numpy.ndarray
        | Sequence[str | Path | PIL.Image.Image | numpy.ndarray]
        | None
    )
    """1-4 reference images, paths or http(s) URLs; the first fixes the shape"""
    input_image: str | Path | PIL.Image.Image | numpy.ndarray | None
    """first frame"""
    image: str | Path | PIL.Image.Image | numpy.ndarray | None
    """input_image, as published commands call it"""
    i2v_image_path: str | Path | PIL.Image.Image | numpy.ndarray | None
    """input_image, as published commands call it"""
    end_image: str | Path | PIL.Image.Image | numpy.ndarray | None
    """last frame, with --input_image"""
    input_video: str | Path | numpy.ndarray | Sequence[PIL.Image.Image] | None
    """video to continue"""
    video: str | Path | numpy.ndarray | Sequence[PIL.Image.Image] | None
    """input_video, as published commands call it"""
    video_path: str | Path | numpy.ndarray | Sequence[PIL.Image.Image] | None
    """input_video, as published commands call it"""
    input_audio: str | Path | None
    """speech, 0.4 s to --max_frames_num: a sound file, or a video's"""
    audio: str | Path | None
    """input_audio, as published commands call it"""
    source_fps: float | str | None
    """resample the input video from this rate, or from its own ('auto')"""
    resolution: str | None
    """size class, such as 720P; the shape follows the input"""
    i2v_resolution: str | None
    """resolution, as published commands call it"""
    size: str | tuple[int, int] | None
    """one of the model's supported sizes"""
    height: int | None
    """exact height in pixels (with --width)"""
    width: int | None
    """exact width in pixels (with --height)"""
    duration: float | None
    """length in seconds"""
    num_frames: int | None
    """length in frames, 4k+1; overrides --duration"""
    frame_num: int | None
    """num_frames, as published commands call it"""
    video_length: int | None
    """num_frames, as published commands call it"""
    fps: int | None
    """frames per second of the file"""
    seed: int | str | Sequence[int] | None
    """0 .. 2^63-1, or random; several, as in 1,2,3, make one video each"""
    base_seed: int | str | Sequence[int] | None
    """seed, as published commands call it"""
    num_inference_steps: int | None
    """denoising steps"""
    sample_steps: int | None
    """num_inference_steps, as published commands call it"""
    inference_steps: int | None
    """num_inference_steps, as published commands call it"""
    infer_steps: int | None
    """num_inference_steps, as published commands call it"""
    guidance_scale: float | tuple[float, float] | None
    """text guidance; 1 is off and costs one forward per step"""
    sample_guide_scale: float | tuple[float, float] | None
    """guidance_scale, as published commands call it"""
    text_guide_scale: float | tuple[float, float] | None
    """guidance_scale, as published commands call it"""
    cfg_scale: float | tuple[float, float] | None
    """guidance_scale, as published commands call it"""
    guidance_scale_img: float | None
    """reference image guidance"""
    guidance_scale_audio: float | None
    """audio guidance"""
    audio_guide_scale: float | None
    """guidance_scale_audio, as published commands call it"""
    embedded_cfg_scale: float | None
    """distilled guidance"""
    shift: float | None
    """shift of the noise schedule"""
    flow_shift: float | None
    """shift, as published commands call it"""
    sample_shift: float | None
    """shift, as published commands call it"""
    sample_solver: str | None
    """how a step is taken; lcm: for weights distilled to a few steps"""
    boundary: float | None
    """noise level from which the high-noise expert works, if there are two"""
    handover: str | None
    """what one segment passes to the next: 8-bit frames, as published, or latents"""
    color_match: bool | None
    """match the colours of new frames to the input's last"""
    noise_device: str | None
    """where noise is drawn; cpu gives the same noise on every machine"""
    ar_step: int | None
    """steps a block of frames is ahead of the next; 0 denoises all together, published: 5"""
    causal_block_size: int | None
    """latent frames of a block; must divide those of a segment, 5 is published with --ar_step"""
    causal_attention: bool | None
    """blocks see only earlier ones; the released weights cannot"""
    base_num_frames: int | None
    """frames of a segment, 4k+1; longer videos are made of several"""
    overlap_history: int | None
    """frames, 4k+1, that a segment knows of what comes before it; 17 or 37 are published"""
    addnoise_condition: int | None
    """noise level 0..1000 on those frames; 20 makes smoother transitions"""
    connection_prompt: str | None
    """prompt of what is seen (--prompt is for a hidden first clip); 'same' takes --prompt"""
    motion_frame: int | None
    """frames carried to the next clip"""
    drop_frame: int | None
    """frames cut at the end of a clip"""
    max_frames_num: int | None
    """longest video in frames"""
    audio_track: str | None
    """sound of the file: the input's own, or the 16 kHz mono that drives the lips, as published"""
    num_videos: int | None
    """how many videos, each with the next seed (default 1)"""
    i2v_stability: bool | None
    """keep close to the first frame (the default, with --shift 7)"""
    no_i2v_stability: bool | None
    """allow more motion (with --shift 17)"""
    i2v_condition_type: str | None
    """how the image gets in; the model's weights decide, anything else is an error"""
    no_riflex: bool | None
    """plain positions in videos of more than 192 frames, which then repeat"""
    output: str | Path | None
    """.mp4, .mov, .webm, .mkv, .gif, .npy, .png of one frame, a folder of PNGs; {any_option} is filled in"""
    save_file: str | Path | None
    """output, as published commands call it"""
    output_dir: str | Path | None
    """folder for <index>_<seed>.mp4"""
    save_path: str | Path | None
    """output_dir, as published commands call it"""
    save_latents: str | Path | None
    """also keep the denoised latents"""
    codec: str | None
    """how a video file is encoded: prores (.mov), vp9 (.webm), ffv1 (.mkv) is lossless; the suffix decides unless given"""
    crf: int | None
    """quality of h264 (default 10) and vp9 (15); lower is better"""
    video_colors: str | None
    """bt709 with tags, which every player shows right, or the published files' BT.601 without"""
    prepend_input: bool | None
    """put the input video before the new frames, at its size"""
    keep_audio: bool | None
    """with --prepend_input: also the input's sound"""
    save_last_frame: str | Path | None
    """also keep the last frame, lossless"""
    contact_sheet: int | None
    """also write <name>.sheet.png: N frames (12 unless given), evenly spaced, each with its time"""
    new_frames_only: bool | None
    """leave the input video out of the file"""
    keep_parts: bool | None
    """keep the preview and the finished segments (<name>.parts/) after success"""
    preview_every: int | None
    """after every K steps show what is predicted, in <name>.preview.webp"""
    vae_preview: str | Path | None
    """decode previews with a tiny autoencoder (TAEHV: taew2_1.pth, taew2_2.pth, taehv.pth)"""
    device: str | torch.device | None
    """auto, cpu, cuda, cuda:N or mps"""
    dtype: str | torch.dtype | None
    """dtype of the large weights"""
    offload: bool | None
    """keep only the component at work on the GPU"""
    use_cpu_offload: bool | None
    """offload, as published commands call it"""
    low_vram: bool | None
    """for small GPUs: float8 weights, blocks streamed to the GPU, tiled decode"""
    use_usp: bool | None
    """several GPUs at one video: torchrun --nproc_per_node=N ... --use_usp"""
    ulysses_degree: int | None
    """ranks that share the attention heads (all of them unless given)"""
    ring_degree: int | None
    """ranks that pass keys and values around; any number, but slower"""
    cfg_parallel: bool | None
    """the forwards of one step (guidance) on different ranks"""
    attention_backend: str | None
    """attention kernel; auto never takes sage, which is not exact"""
    compile: bool | None
    """compile the transformer blocks (the first step takes minutes)"""
    float8_matmul: bool | None
    """multiply in float8 in all transformer blocks but the first and the last; not exact; with --compile, on a GPU of compute capability 8.9 or more"""
    quantize: str | None
    """transformer weights in 8 or 4 bits, for less memory on any GPU; not exact"""
    vae_tiling: str | None
    """tiled decode for small GPUs"""
    vae_dtype: str | torch.dtype | None
    """dtype of the decode; bfloat16 is faster and takes less memory, and is not exact"""
    embedding_cache: str | None
    """keep encoded prompts here; known ones need no text encoder"""
    teacache: bool | None
    """TeaCache: skip forwards that would change little; faster, not exact"""
    teacache_thresh: float | None
    """higher skips more: 0.1 is about twice, 0.2 about three times as fast"""
    use_ret_steps: bool | None
    """TeaCache's other variant: the first five steps are always computed"""
    teacache_model: str | None
    """TeaCache coefficients where the model's name does not say: I2V-540P, I2V-720P, T2V-1.3B or T2V-14B"""
    teacache_fixed: bool | None
    """count TeaCache's steps per guidance branch, not calls as published"""
    cache: str | None
    """skip forwards with first_block[:0.05], magcache[:0.06] (measured first with magcache:calibrate), or extrapolate them with taylorseer[:5] or taylorseer_lite[:5], the number being diffusers' threshold or interval; faster, not exact"""
    preset: str | None
    """set LoRAs, solver, steps, guidance and shift that belong together, as far as they are not given; lightning: four steps, with two experts (configs/presets.yaml)"""
    lora: str | Path | Sequence[str | Path] | None
    """LoRA weights, repeatable"""
    revision: str | None
    """branch, tag or commit of the hub repository"""
    transformer: str | Path | Sequence[str | Path] | None
    """one file in place of the model's transformer, also float8 or GGUF; repeatable for two experts"""
    text_encoder: str | Path | None
    """one file in place of the model's text encoder"""
    vae: str | Path | None
    """one file in place of the model's VAE"""
    download_timeout: float | None
    """seconds without progress before a download is given up"""

@overload
def load(
    task: Literal["reference_to_video"],
    model: str | Path | None = None,
    *,
    revision: str | None = None,
    dtype: torch.dtype | str = torch.bfloat16,
    device: str | torch.device = "auto",
    components: Mapping[str, Any] | None = None,
) -> ReferenceToVideoPipeline: ...
@overload
def load(
    task: Literal["single_shot_extension"],
    model: str | Path | None = None,
    *,
    revision: str | None = None,
    dtype: torch.dtype | str = torch.bfloat16,
    device: str | torch.device = "auto",
    components: Mapping[str, Any] | None = None,
) -> SingleShotExtensionPipeline: ...
@overload
def load(
    task: Literal["shot_switching_extension"],
    model: str | Path | None = None,
    *,
    revision: str | None = None,
    dtype: torch.dtype | str = torch.bfloat16,
    device: str | torch.device = "auto",
    components: Mapping[str, Any] | None = None,
) -> ShotSwitchingExtensionPipeline: ...
@overload
def load(
    task: Literal["talking_avatar"],
    model: str | Path | None = None,
    *,
    revision: str | None = None,
    dtype: torch.dtype | str = torch.bfloat16,
    device: str | torch.device = "auto",
    components: Mapping[str, Any] | None = None,
) -> TalkingAvatarPipeline: ...
@overload
def load(
    task: Literal["text_to_video"],
    model: str | Path | None = None,
    *,
    revision: str | None = None,
    dtype: torch.dtype | str = torch.bfloat16,
    device: str | torch.device = "auto",
    components: Mapping[str, Any] | None = None,
) -> TextToVideoPipeline | Wan22A14BPipeline | Wan22TI2V5BPipeline: ...
@overload
def load(
    task: Literal["image_to_video"],
    model: str | Path | None = None,
    *,
    revision: str | None = None,
    dtype: torch.dtype | str = torch.bfloat16,
    device: str | torch.device = "auto",
    components: Mapping[str, Any] | None = None,
) -> ImageToVideoPipeline | Wan22A14BPipeline | Wan22TI2V5BPipeline: ...
@overload
def load(
    task: Literal["diffusion_forcing"],
    model: str | Path | None = None,
    *,
    revision: str | None = None,
    dtype: torch.dtype | str = torch.bfloat16,
    device: str | torch.device = "auto",
    components: Mapping[str, Any] | None = None,
) -> DiffusionForcingPipeline: ...
@overload
def load(
    task: Literal["v2v-14B"],
    model: str | Path | None = None,
    *,
    revision: str | None = None,
    dtype: torch.dtype | str = torch.bfloat16,
    device: str | torch.device = "auto",
    components: Mapping[str, Any] | None = None,
) -> Wan22A14BPipeline: ...
@overload
def load(
    task: Literal["v2v-5B"],
    model: str | Path | None = None,
    *,
    revision: str | None = None,
    dtype: torch.dtype | str = torch.bfloat16,
    device: str | torch.device = "auto",
    components: Mapping[str, Any] | None = None,
) -> Wan22TI2V5BPipeline: ...
@overload
def load(
    task: Literal["hunyuan_image_to_video"],
    model: str | Path | None = None,
    *,
    revision: str | None = None,
    dtype: torch.dtype | str = torch.bfloat16,
    device: str | torch.device = "auto",
    components: Mapping[str, Any] | None = None,
) -> HunyuanImageToVideoPipeline: ...
@overload
def load(
    task: str,
    model: str | Path | None = None,
    *,
    revision: str | None = None,
    dtype: torch.dtype | str = torch.bfloat16,
    device: str | torch.device = "auto",
    components: Mapping[str, Any] | None = None,
) -> VideoPipeline: ...
