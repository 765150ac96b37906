"""Calls of the pipelines as functions; written by ``python -m tests.structure.write_stubs``."""

import collections.abc
import pathlib
import typing

import numpy
import PIL.Image
import torch
import videogen.pipelines.pixels

def any_pipeline(self: object, *given: typing.Any, **arguments: typing.Any) -> typing.Any: ...
def reference_to_video(
    self: object,
    prompt: str
    | collections.abc.Sequence[str]
    | collections.abc.Sequence[collections.abc.Sequence[str]]
    | None = None,
    *,
    negative_prompt: str | collections.abc.Sequence[str] | None = None,
    ref_imgs: collections.abc.Sequence[PIL.Image.Image | numpy.ndarray]
    | collections.abc.Sequence[collections.abc.Sequence[PIL.Image.Image | numpy.ndarray]]
    | None = None,
    resolution: str | None = None,
    size: tuple[int, int] | None = None,
    height: int | None = None,
    width: int | None = None,
    duration: float | None = None,
    num_frames: int | None = None,
    fps: int | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | tuple[float, float] | None = None,
    guidance_scale_img: float | None = None,
    shift: float | None = None,
    sample_solver: str | None = None,
    prompt_embeds: torch.Tensor | None = None,
    negative_prompt_embeds: torch.Tensor | None = None,
    num_videos_per_prompt: int = 1,
    generator: torch.Generator | collections.abc.Sequence[torch.Generator] | None = None,
    latents: torch.Tensor | None = None,
    output_type: str = "np",
    return_dict: bool = True,
    attention_kwargs: dict[str, object] | None = None,
    callback_on_step_end: collections.abc.Callable[..., collections.abc.Mapping[str, torch.Tensor] | None]
    | None = None,
    callback_on_step_end_tensor_inputs: collections.abc.Sequence[str] = ("latents",),
    max_sequence_length: int | None = None,
) -> videogen.pipelines.pixels.VideoOutput:
    """Make videos: reference_to_video.

    What is left out, or None, is as published for the model. Several videos are made one after another; if a
    callback interrupts one, those after it are not made.

    Args:
        prompt: what the video shows; a list makes a video of each, or gives each segment of a long video
            its own
        negative_prompt: what it should not show; used when guidance is on
        ref_imgs: 1-4 reference images, paths or http(s) URLs; the first fixes the shape
        resolution: size class, such as 720P; the shape follows the input
        size: one of the model's supported sizes
        height: exact height in pixels (with --width)
        width: exact width in pixels (with --height)
        duration: length in seconds
        num_frames: length in frames, 4k+1; overrides --duration
        fps: frames per second of the file
        num_inference_steps: denoising steps
        guidance_scale: text guidance; 1 is off and costs one forward per step
        guidance_scale_img: reference image guidance
        shift: shift of the noise schedule
        sample_solver: how a step is taken; lcm: for weights distilled to a few steps
        prompt_embeds: what encode_prompt returns, in place of a prompt
        negative_prompt_embeds: what encode_prompt returns, in place of a prompt
        num_videos_per_prompt: videos of each prompt, made one after another
        generator: source of the random draws, one for all videos or one for each; None draws a seed
        latents: initial noise, [videos, C, F, h, w], in place of the first draw
        output_type: 'np' float [videos, F, H, W, 3] in [0, 1], 'pt' [videos, F, 3, H, W], 'pil' a list of
            images for each video, 'uint8' [videos, F, H, W, 3], or 'latent' [videos, C, F, h, w]
        return_dict: False returns the tuple (frames,)
        attention_kwargs: handed to the transformer; {"scale": s} scales loaded LoRA layers
        callback_on_step_end: called as (pipeline, index, timestep, tensors) after every step; may return
            tensors to go on with
        callback_on_step_end_tensor_inputs: tensors that the callback gets; latents, prompt_embeds,
            negative_prompt_embeds
        max_sequence_length: rows of an encoded prompt, as published unless given; longer prompts are cut

    Returns:
        VideoOutput: ``frames``, of one video after another, in the form that ``output_type`` names.

    Raises:
        InputError: an argument that cannot be used; the message says what is allowed and what is near.
    """

def single_shot_extension(
    self: object,
    prompt: str
    | collections.abc.Sequence[str]
    | collections.abc.Sequence[collections.abc.Sequence[str]]
    | None = None,
    *,
    negative_prompt: str | collections.abc.Sequence[str] | None = None,
    input_video: str
    | pathlib.Path
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image]
    | collections.abc.Sequence[str | pathlib.Path | numpy.ndarray | collections.abc.Sequence[PIL.Image.Image]]
    | None = None,
    source_fps: float | None = None,
    resolution: str | None = None,
    size: tuple[int, int] | None = None,
    height: int | None = None,
    width: int | None = None,
    duration: float | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | tuple[float, float] | None = None,
    shift: float | None = None,
    sample_solver: str | None = None,
    handover: str | None = None,
    color_match: bool | None = None,
    video: str
    | pathlib.Path
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image]
    | collections.abc.Sequence[str | pathlib.Path | numpy.ndarray | collections.abc.Sequence[PIL.Image.Image]]
    | None = None,
    prompt_embeds: torch.Tensor | None = None,
    negative_prompt_embeds: torch.Tensor | None = None,
    num_videos_per_prompt: int = 1,
    generator: torch.Generator | collections.abc.Sequence[torch.Generator] | None = None,
    latents: torch.Tensor | None = None,
    output_type: str = "np",
    return_dict: bool = True,
    attention_kwargs: dict[str, object] | None = None,
    callback_on_step_end: collections.abc.Callable[..., collections.abc.Mapping[str, torch.Tensor] | None]
    | None = None,
    callback_on_step_end_tensor_inputs: collections.abc.Sequence[str] = ("latents",),
    max_sequence_length: int | None = None,
) -> videogen.pipelines.pixels.VideoOutput:
    """Make videos: single_shot_extension.

    What is left out, or None, is as published for the model. Several videos are made one after another; if a
    callback interrupts one, those after it are not made.

    Args:
        prompt: what the video shows; a list makes a video of each, or gives each segment of a long video
            its own
        negative_prompt: what it should not show; used when guidance is on
        input_video: video to continue
        source_fps: resample the input video from this rate, or from its own ('auto')
        resolution: size class, such as 720P; the shape follows the input
        size: one of the model's supported sizes
        height: exact height in pixels (with --width)
        width: exact width in pixels (with --height)
        duration: length in seconds
        num_inference_steps: denoising steps
        guidance_scale: text guidance; 1 is off and costs one forward per step
        shift: shift of the noise schedule
        sample_solver: how a step is taken; lcm: for weights distilled to a few steps
        handover: what one segment passes to the next: 8-bit frames, as published, or latents
        color_match: match the colours of new frames to the input's last
        video: input_video, in diffusers
        prompt_embeds: what encode_prompt returns, in place of a prompt
        negative_prompt_embeds: what encode_prompt returns, in place of a prompt
        num_videos_per_prompt: videos of each prompt, made one after another
        generator: source of the random draws, one for all videos or one for each; None draws a seed
        latents: initial noise, [videos, C, F, h, w], in place of the first draw
        output_type: 'np' float [videos, F, H, W, 3] in [0, 1], 'pt' [videos, F, 3, H, W], 'pil' a list of
            images for each video, 'uint8' [videos, F, H, W, 3], or 'latent' [videos, C, F, h, w]
        return_dict: False returns the tuple (frames,)
        attention_kwargs: handed to the transformer; {"scale": s} scales loaded LoRA layers
        callback_on_step_end: called as (pipeline, index, timestep, tensors) after every step; may return
            tensors to go on with
        callback_on_step_end_tensor_inputs: tensors that the callback gets; latents, prompt_embeds,
            negative_prompt_embeds
        max_sequence_length: rows of an encoded prompt, as published unless given; longer prompts are cut

    Returns:
        VideoOutput: ``frames``, of one video after another, in the form that ``output_type`` names.

    Raises:
        InputError: an argument that cannot be used; the message says what is allowed and what is near.
    """

def shot_switching_extension(
    self: object,
    prompt: str
    | collections.abc.Sequence[str]
    | collections.abc.Sequence[collections.abc.Sequence[str]]
    | None = None,
    *,
    negative_prompt: str | collections.abc.Sequence[str] | None = None,
    input_video: str
    | pathlib.Path
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image]
    | collections.abc.Sequence[str | pathlib.Path | numpy.ndarray | collections.abc.Sequence[PIL.Image.Image]]
    | None = None,
    source_fps: float | None = None,
    resolution: str | None = None,
    size: tuple[int, int] | None = None,
    height: int | None = None,
    width: int | None = None,
    duration: float | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | tuple[float, float] | None = None,
    shift: float | None = None,
    sample_solver: str | None = None,
    color_match: bool | None = None,
    video: str
    | pathlib.Path
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image]
    | collections.abc.Sequence[str | pathlib.Path | numpy.ndarray | collections.abc.Sequence[PIL.Image.Image]]
    | None = None,
    prompt_embeds: torch.Tensor | None = None,
    negative_prompt_embeds: torch.Tensor | None = None,
    num_videos_per_prompt: int = 1,
    generator: torch.Generator | collections.abc.Sequence[torch.Generator] | None = None,
    latents: torch.Tensor | None = None,
    output_type: str = "np",
    return_dict: bool = True,
    attention_kwargs: dict[str, object] | None = None,
    callback_on_step_end: collections.abc.Callable[..., collections.abc.Mapping[str, torch.Tensor] | None]
    | None = None,
    callback_on_step_end_tensor_inputs: collections.abc.Sequence[str] = ("latents",),
    max_sequence_length: int | None = None,
) -> videogen.pipelines.pixels.VideoOutput:
    """Make videos: shot_switching_extension.

    What is left out, or None, is as published for the model. Several videos are made one after another; if a
    callback interrupts one, those after it are not made.

    Args:
        prompt: what the video shows; a list makes a video of each, or gives each segment of a long video
            its own
        negative_prompt: what it should not show; used when guidance is on
        input_video: video to continue
        source_fps: resample the input video from this rate, or from its own ('auto')
        resolution: size class, such as 720P; the shape follows the input
        size: one of the model's supported sizes
        height: exact height in pixels (with --width)
        width: exact width in pixels (with --height)
        duration: length in seconds
        num_inference_steps: denoising steps
        guidance_scale: text guidance; 1 is off and costs one forward per step
        shift: shift of the noise schedule
        sample_solver: how a step is taken; lcm: for weights distilled to a few steps
        color_match: match the colours of new frames to the input's last
        video: input_video, in diffusers
        prompt_embeds: what encode_prompt returns, in place of a prompt
        negative_prompt_embeds: what encode_prompt returns, in place of a prompt
        num_videos_per_prompt: videos of each prompt, made one after another
        generator: source of the random draws, one for all videos or one for each; None draws a seed
        latents: initial noise, [videos, C, F, h, w], in place of the first draw
        output_type: 'np' float [videos, F, H, W, 3] in [0, 1], 'pt' [videos, F, 3, H, W], 'pil' a list of
            images for each video, 'uint8' [videos, F, H, W, 3], or 'latent' [videos, C, F, h, w]
        return_dict: False returns the tuple (frames,)
        attention_kwargs: handed to the transformer; {"scale": s} scales loaded LoRA layers
        callback_on_step_end: called as (pipeline, index, timestep, tensors) after every step; may return
            tensors to go on with
        callback_on_step_end_tensor_inputs: tensors that the callback gets; latents, prompt_embeds,
            negative_prompt_embeds
        max_sequence_length: rows of an encoded prompt, as published unless given; longer prompts are cut

    Returns:
        VideoOutput: ``frames``, of one video after another, in the form that ``output_type`` names.

    Raises:
        InputError: an argument that cannot be used; the message says what is allowed and what is near.
    """

def talking_avatar(
    self: object,
    prompt: str
    | collections.abc.Sequence[str]
    | collections.abc.Sequence[collections.abc.Sequence[str]]
    | None = None,
    *,
    negative_prompt: str | collections.abc.Sequence[str] | None = None,
    input_image: PIL.Image.Image
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image | numpy.ndarray]
    | None = None,
    input_audio: str | pathlib.Path | collections.abc.Sequence[str | pathlib.Path] | None = None,
    resolution: str | None = None,
    size: tuple[int, int] | None = None,
    height: int | None = None,
    width: int | None = None,
    num_frames: int | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | tuple[float, float] | None = None,
    guidance_scale_audio: float | None = None,
    shift: float | None = None,
    connection_prompt: str | None = None,
    motion_frame: int | None = None,
    drop_frame: int | None = None,
    max_frames_num: int | None = None,
    image: PIL.Image.Image
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image | numpy.ndarray]
    | None = None,
    prompt_embeds: torch.Tensor | None = None,
    negative_prompt_embeds: torch.Tensor | None = None,
    num_videos_per_prompt: int = 1,
    generator: torch.Generator | collections.abc.Sequence[torch.Generator] | None = None,
    latents: torch.Tensor | None = None,
    output_type: str = "np",
    return_dict: bool = True,
    attention_kwargs: dict[str, object] | None = None,
    callback_on_step_end: collections.abc.Callable[..., collections.abc.Mapping[str, torch.Tensor] | None]
    | None = None,
    callback_on_step_end_tensor_inputs: collections.abc.Sequence[str] = ("latents",),
    max_sequence_length: int | None = None,
) -> videogen.pipelines.pixels.VideoOutput:
    """Make videos: talking_avatar.

    What is left out, or None, is as published for the model. Several videos are made one after another; if a
    callback interrupts one, those after it are not made.

    Args:
        prompt: what the video shows; a list makes a video of each, or gives each segment of a long video
            its own
        negative_prompt: what it should not show; used when guidance is on
        input_image: first frame
        input_audio: speech, 0.4 s to --max_frames_num: a sound file, or a video's
        resolution: size class, such as 720P; the shape follows the input
        size: one of the model's supported sizes
        height: exact height in pixels (with --width)
        width: exact width in pixels (with --height)
        num_frames: length in frames, 4k+1; overrides --duration
        num_inference_steps: denoising steps
        guidance_scale: text guidance; 1 is off and costs one forward per step
        guidance_scale_audio: audio guidance
        shift: shift of the noise schedule
        connection_prompt: prompt of what is seen (--prompt is for a hidden first clip); 'same' takes
            --prompt
        motion_frame: frames carried to the next clip
        drop_frame: frames cut at the end of a clip
        max_frames_num: longest video in frames
        image: input_image, in diffusers
        prompt_embeds: what encode_prompt returns, in place of a prompt
        negative_prompt_embeds: what encode_prompt returns, in place of a prompt
        num_videos_per_prompt: videos of each prompt, made one after another
        generator: source of the random draws, one for all videos or one for each; None draws a seed
        latents: initial noise, [videos, C, F, h, w], in place of the first draw
        output_type: 'np' float [videos, F, H, W, 3] in [0, 1], 'pt' [videos, F, 3, H, W], 'pil' a list of
            images for each video, 'uint8' [videos, F, H, W, 3], or 'latent' [videos, C, F, h, w]
        return_dict: False returns the tuple (frames,)
        attention_kwargs: handed to the transformer; {"scale": s} scales loaded LoRA layers
        callback_on_step_end: called as (pipeline, index, timestep, tensors) after every step; may return
            tensors to go on with
        callback_on_step_end_tensor_inputs: tensors that the callback gets; latents, prompt_embeds,
            negative_prompt_embeds
        max_sequence_length: rows of an encoded prompt, as published unless given; longer prompts are cut

    Returns:
        VideoOutput: ``frames``, of one video after another, in the form that ``output_type`` names.

    Raises:
        InputError: an argument that cannot be used; the message says what is allowed and what is near.
    """

def text_to_video(
    self: object,
    prompt: str
    | collections.abc.Sequence[str]
    | collections.abc.Sequence[collections.abc.Sequence[str]]
    | None = None,
    *,
    negative_prompt: str | collections.abc.Sequence[str] | None = None,
    resolution: str | None = None,
    size: tuple[int, int] | None = None,
    height: int | None = None,
    width: int | None = None,
    duration: float | None = None,
    num_frames: int | None = None,
    fps: int | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | tuple[float, float] | None = None,
    shift: float | None = None,
    sample_solver: str | None = None,
    prompt_embeds: torch.Tensor | None = None,
    negative_prompt_embeds: torch.Tensor | None = None,
    num_videos_per_prompt: int = 1,
    generator: torch.Generator | collections.abc.Sequence[torch.Generator] | None = None,
    latents: torch.Tensor | None = None,
    output_type: str = "np",
    return_dict: bool = True,
    attention_kwargs: dict[str, object] | None = None,
    callback_on_step_end: collections.abc.Callable[..., collections.abc.Mapping[str, torch.Tensor] | None]
    | None = None,
    callback_on_step_end_tensor_inputs: collections.abc.Sequence[str] = ("latents",),
    max_sequence_length: int | None = None,
) -> videogen.pipelines.pixels.VideoOutput:
    """Make videos: text_to_video.

    What is left out, or None, is as published for the model. Several videos are made one after another; if a
    callback interrupts one, those after it are not made.

    Args:
        prompt: what the video shows; a list makes a video of each, or gives each segment of a long video
            its own
        negative_prompt: what it should not show; used when guidance is on
        resolution: size class, such as 720P; the shape follows the input
        size: one of the model's supported sizes
        height: exact height in pixels (with --width)
        width: exact width in pixels (with --height)
        duration: length in seconds
        num_frames: length in frames, 4k+1; overrides --duration
        fps: frames per second of the file
        num_inference_steps: denoising steps
        guidance_scale: text guidance; 1 is off and costs one forward per step
        shift: shift of the noise schedule
        sample_solver: how a step is taken; lcm: for weights distilled to a few steps
        prompt_embeds: what encode_prompt returns, in place of a prompt
        negative_prompt_embeds: what encode_prompt returns, in place of a prompt
        num_videos_per_prompt: videos of each prompt, made one after another
        generator: source of the random draws, one for all videos or one for each; None draws a seed
        latents: initial noise, [videos, C, F, h, w], in place of the first draw
        output_type: 'np' float [videos, F, H, W, 3] in [0, 1], 'pt' [videos, F, 3, H, W], 'pil' a list of
            images for each video, 'uint8' [videos, F, H, W, 3], or 'latent' [videos, C, F, h, w]
        return_dict: False returns the tuple (frames,)
        attention_kwargs: handed to the transformer; {"scale": s} scales loaded LoRA layers
        callback_on_step_end: called as (pipeline, index, timestep, tensors) after every step; may return
            tensors to go on with
        callback_on_step_end_tensor_inputs: tensors that the callback gets; latents, prompt_embeds,
            negative_prompt_embeds
        max_sequence_length: rows of an encoded prompt, as published unless given; longer prompts are cut

    Returns:
        VideoOutput: ``frames``, of one video after another, in the form that ``output_type`` names.

    Raises:
        InputError: an argument that cannot be used; the message says what is allowed and what is near.
    """

def image_to_video(
    self: object,
    prompt: str
    | collections.abc.Sequence[str]
    | collections.abc.Sequence[collections.abc.Sequence[str]]
    | None = None,
    *,
    negative_prompt: str | collections.abc.Sequence[str] | None = None,
    input_image: PIL.Image.Image
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image | numpy.ndarray]
    | None = None,
    end_image: PIL.Image.Image
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image | numpy.ndarray]
    | None = None,
    resolution: str | None = None,
    size: tuple[int, int] | None = None,
    height: int | None = None,
    width: int | None = None,
    duration: float | None = None,
    num_frames: int | None = None,
    fps: int | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | tuple[float, float] | None = None,
    shift: float | None = None,
    sample_solver: str | None = None,
    image: PIL.Image.Image
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image | numpy.ndarray]
    | None = None,
    last_image: PIL.Image.Image
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image | numpy.ndarray]
    | None = None,
    prompt_embeds: torch.Tensor | None = None,
    negative_prompt_embeds: torch.Tensor | None = None,
    num_videos_per_prompt: int = 1,
    generator: torch.Generator | collections.abc.Sequence[torch.Generator] | None = None,
    latents: torch.Tensor | None = None,
    output_type: str = "np",
    return_dict: bool = True,
    attention_kwargs: dict[str, object] | None = None,
    callback_on_step_end: collections.abc.Callable[..., collections.abc.Mapping[str, torch.Tensor] | None]
    | None = None,
    callback_on_step_end_tensor_inputs: collections.abc.Sequence[str] = ("latents",),
    max_sequence_length: int | None = None,
) -> videogen.pipelines.pixels.VideoOutput:
    """Make videos: image_to_video.

    What is left out, or None, is as published for the model. Several videos are made one after another; if a
    callback interrupts one, those after it are not made.

    Args:
        prompt: what the video shows; a list makes a video of each, or gives each segment of a long video
            its own
        negative_prompt: what it should not show; used when guidance is on
        input_image: first frame
        end_image: last frame, with --input_image
        resolution: size class, such as 720P; the shape follows the input
        size: one of the model's supported sizes
        height: exact height in pixels (with --width)
        width: exact width in pixels (with --height)
        duration: length in seconds
        num_frames: length in frames, 4k+1; overrides --duration
        fps: frames per second of the file
        num_inference_steps: denoising steps
        guidance_scale: text guidance; 1 is off and costs one forward per step
        shift: shift of the noise schedule
        sample_solver: how a step is taken; lcm: for weights distilled to a few steps
        image: input_image, in diffusers
        last_image: end_image, in diffusers
        prompt_embeds: what encode_prompt returns, in place of a prompt
        negative_prompt_embeds: what encode_prompt returns, in place of a prompt
        num_videos_per_prompt: videos of each prompt, made one after another
        generator: source of the random draws, one for all videos or one for each; None draws a seed
        latents: initial noise, [videos, C, F, h, w], in place of the first draw
        output_type: 'np' float [videos, F, H, W, 3] in [0, 1], 'pt' [videos, F, 3, H, W], 'pil' a list of
            images for each video, 'uint8' [videos, F, H, W, 3], or 'latent' [videos, C, F, h, w]
        return_dict: False returns the tuple (frames,)
        attention_kwargs: handed to the transformer; {"scale": s} scales loaded LoRA layers
        callback_on_step_end: called as (pipeline, index, timestep, tensors) after every step; may return
            tensors to go on with
        callback_on_step_end_tensor_inputs: tensors that the callback gets; latents, prompt_embeds,
            negative_prompt_embeds
        max_sequence_length: rows of an encoded prompt, as published unless given; longer prompts are cut

    Returns:
        VideoOutput: ``frames``, of one video after another, in the form that ``output_type`` names.

    Raises:
        InputError: an argument that cannot be used; the message says what is allowed and what is near.
    """

def diffusion_forcing(
    self: object,
    prompt: str
    | collections.abc.Sequence[str]
    | collections.abc.Sequence[collections.abc.Sequence[str]]
    | None = None,
    *,
    negative_prompt: str | collections.abc.Sequence[str] | None = None,
    input_image: PIL.Image.Image
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image | numpy.ndarray]
    | None = None,
    end_image: PIL.Image.Image
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image | numpy.ndarray]
    | None = None,
    input_video: str
    | pathlib.Path
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image]
    | collections.abc.Sequence[str | pathlib.Path | numpy.ndarray | collections.abc.Sequence[PIL.Image.Image]]
    | None = None,
    resolution: str | None = None,
    size: tuple[int, int] | None = None,
    height: int | None = None,
    width: int | None = None,
    duration: float | None = None,
    num_frames: int | None = None,
    fps: int | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | tuple[float, float] | None = None,
    shift: float | None = None,
    sample_solver: str | None = None,
    ar_step: int | None = None,
    causal_block_size: int | None = None,
    causal_attention: bool | None = None,
    base_num_frames: int | None = None,
    overlap_history: int | None = None,
    addnoise_condition: int | None = None,
    image: PIL.Image.Image
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image | numpy.ndarray]
    | None = None,
    last_image: PIL.Image.Image
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image | numpy.ndarray]
    | None = None,
    video: str
    | pathlib.Path
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image]
    | collections.abc.Sequence[str | pathlib.Path | numpy.ndarray | collections.abc.Sequence[PIL.Image.Image]]
    | None = None,
    prompt_embeds: torch.Tensor | None = None,
    negative_prompt_embeds: torch.Tensor | None = None,
    num_videos_per_prompt: int = 1,
    generator: torch.Generator | collections.abc.Sequence[torch.Generator] | None = None,
    latents: torch.Tensor | None = None,
    output_type: str = "np",
    return_dict: bool = True,
    attention_kwargs: dict[str, object] | None = None,
    callback_on_step_end: collections.abc.Callable[..., collections.abc.Mapping[str, torch.Tensor] | None]
    | None = None,
    callback_on_step_end_tensor_inputs: collections.abc.Sequence[str] = ("latents",),
    max_sequence_length: int | None = None,
) -> videogen.pipelines.pixels.VideoOutput:
    """Make videos: diffusion_forcing.

    What is left out, or None, is as published for the model. Several videos are made one after another; if a
    callback interrupts one, those after it are not made.

    Args:
        prompt: what the video shows; a list makes a video of each, or gives each segment of a long video
            its own
        negative_prompt: what it should not show; used when guidance is on
        input_image: first frame
        end_image: last frame, with --input_image
        input_video: video to continue
        resolution: size class, such as 720P; the shape follows the input
        size: one of the model's supported sizes
        height: exact height in pixels (with --width)
        width: exact width in pixels (with --height)
        duration: length in seconds
        num_frames: length in frames, 4k+1; overrides --duration
        fps: frames per second of the file
        num_inference_steps: denoising steps
        guidance_scale: text guidance; 1 is off and costs one forward per step
        shift: shift of the noise schedule
        sample_solver: how a step is taken; lcm: for weights distilled to a few steps
        ar_step: steps a block of frames is ahead of the next; 0 denoises all together, published: 5
        causal_block_size: latent frames of a block; must divide those of a segment, 5 is published with
            --ar_step
        causal_attention: blocks see only earlier ones; the released weights cannot
        base_num_frames: frames of a segment, 4k+1; longer videos are made of several
        overlap_history: frames, 4k+1, that a segment knows of what comes before it; 17 or 37 are published
        addnoise_condition: noise level 0..1000 on those frames; 20 makes smoother transitions
        image: input_image, in diffusers
        last_image: end_image, in diffusers
        video: input_video, in diffusers
        prompt_embeds: what encode_prompt returns, in place of a prompt
        negative_prompt_embeds: what encode_prompt returns, in place of a prompt
        num_videos_per_prompt: videos of each prompt, made one after another
        generator: source of the random draws, one for all videos or one for each; None draws a seed
        latents: initial noise, [videos, C, F, h, w], in place of the first draw
        output_type: 'np' float [videos, F, H, W, 3] in [0, 1], 'pt' [videos, F, 3, H, W], 'pil' a list of
            images for each video, 'uint8' [videos, F, H, W, 3], or 'latent' [videos, C, F, h, w]
        return_dict: False returns the tuple (frames,)
        attention_kwargs: handed to the transformer; {"scale": s} scales loaded LoRA layers
        callback_on_step_end: called as (pipeline, index, timestep, tensors) after every step; may return
            tensors to go on with
        callback_on_step_end_tensor_inputs: tensors that the callback gets; latents, prompt_embeds,
            negative_prompt_embeds
        max_sequence_length: rows of an encoded prompt, as published unless given; longer prompts are cut

    Returns:
        VideoOutput: ``frames``, of one video after another, in the form that ``output_type`` names.

    Raises:
        InputError: an argument that cannot be used; the message says what is allowed and what is near.
    """

def wan22_a14b(
    self: object,
    prompt: str
    | collections.abc.Sequence[str]
    | collections.abc.Sequence[collections.abc.Sequence[str]]
    | None = None,
    *,
    negative_prompt: str | collections.abc.Sequence[str] | None = None,
    resolution: str | None = None,
    size: tuple[int, int] | None = None,
    height: int | None = None,
    width: int | None = None,
    duration: float | None = None,
    num_frames: int | None = None,
    fps: int | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | tuple[float, float] | None = None,
    shift: float | None = None,
    sample_solver: str | None = None,
    boundary: float | None = None,
    input_image: PIL.Image.Image
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image | numpy.ndarray]
    | None = None,
    end_image: PIL.Image.Image
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image | numpy.ndarray]
    | None = None,
    input_video: str
    | pathlib.Path
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image]
    | collections.abc.Sequence[str | pathlib.Path | numpy.ndarray | collections.abc.Sequence[PIL.Image.Image]]
    | None = None,
    color_match: bool | None = None,
    image: PIL.Image.Image
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image | numpy.ndarray]
    | None = None,
    last_image: PIL.Image.Image
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image | numpy.ndarray]
    | None = None,
    video: str
    | pathlib.Path
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image]
    | collections.abc.Sequence[str | pathlib.Path | numpy.ndarray | collections.abc.Sequence[PIL.Image.Image]]
    | None = None,
    prompt_embeds: torch.Tensor | None = None,
    negative_prompt_embeds: torch.Tensor | None = None,
    num_videos_per_prompt: int = 1,
    generator: torch.Generator | collections.abc.Sequence[torch.Generator] | None = None,
    latents: torch.Tensor | None = None,
    output_type: str = "np",
    return_dict: bool = True,
    attention_kwargs: dict[str, object] | None = None,
    callback_on_step_end: collections.abc.Callable[..., collections.abc.Mapping[str, torch.Tensor] | None]
    | None = None,
    callback_on_step_end_tensor_inputs: collections.abc.Sequence[str] = ("latents",),
    max_sequence_length: int | None = None,
) -> videogen.pipelines.pixels.VideoOutput:
    """Make videos: text_to_video, image_to_video, v2v-14B.

    What is left out, or None, is as published for the model. Several videos are made one after another; if a
    callback interrupts one, those after it are not made.

    Args:
        prompt: what the video shows; a list makes a video of each, or gives each segment of a long video
            its own
        negative_prompt: what it should not show; used when guidance is on
        resolution: size class, such as 720P; the shape follows the input
        size: one of the model's supported sizes
        height: exact height in pixels (with --width)
        width: exact width in pixels (with --height)
        duration: length in seconds
        num_frames: length in frames, 4k+1; overrides --duration
        fps: frames per second of the file
        num_inference_steps: denoising steps
        guidance_scale: text guidance; 1 is off and costs one forward per step
        shift: shift of the noise schedule
        sample_solver: how a step is taken; lcm: for weights distilled to a few steps
        boundary: noise level from which the high-noise expert works, if there are two
        input_image: first frame
        end_image: last frame, with --input_image
        input_video: video to continue
        color_match: match the colours of new frames to the input's last
        image: input_image, in diffusers
        last_image: end_image, in diffusers
        video: input_video, in diffusers
        prompt_embeds: what encode_prompt returns, in place of a prompt
        negative_prompt_embeds: what encode_prompt returns, in place of a prompt
        num_videos_per_prompt: videos of each prompt, made one after another
        generator: source of the random draws, one for all videos or one for each; None draws a seed
        latents: initial noise, [videos, C, F, h, w], in place of the first draw
        output_type: 'np' float [videos, F, H, W, 3] in [0, 1], 'pt' [videos, F, 3, H, W], 'pil' a list of
            images for each video, 'uint8' [videos, F, H, W, 3], or 'latent' [videos, C, F, h, w]
        return_dict: False returns the tuple (frames,)
        attention_kwargs: handed to the transformer; {"scale": s} scales loaded LoRA layers
        callback_on_step_end: called as (pipeline, index, timestep, tensors) after every step; may return
            tensors to go on with
        callback_on_step_end_tensor_inputs: tensors that the callback gets; latents, prompt_embeds,
            negative_prompt_embeds
        max_sequence_length: rows of an encoded prompt, as published unless given; longer prompts are cut

    Returns:
        VideoOutput: ``frames``, of one video after another, in the form that ``output_type`` names.

    Raises:
        InputError: an argument that cannot be used; the message says what is allowed and what is near.
    """

def wan22_5b(
    self: object,
    prompt: str
    | collections.abc.Sequence[str]
    | collections.abc.Sequence[collections.abc.Sequence[str]]
    | None = None,
    *,
    negative_prompt: str | collections.abc.Sequence[str] | None = None,
    resolution: str | None = None,
    size: tuple[int, int] | None = None,
    height: int | None = None,
    width: int | None = None,
    duration: float | None = None,
    num_frames: int | None = None,
    fps: int | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | tuple[float, float] | None = None,
    shift: float | None = None,
    sample_solver: str | None = None,
    input_image: PIL.Image.Image
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image | numpy.ndarray]
    | None = None,
    input_video: str
    | pathlib.Path
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image]
    | collections.abc.Sequence[str | pathlib.Path | numpy.ndarray | collections.abc.Sequence[PIL.Image.Image]]
    | None = None,
    color_match: bool | None = None,
    image: PIL.Image.Image
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image | numpy.ndarray]
    | None = None,
    video: str
    | pathlib.Path
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image]
    | collections.abc.Sequence[str | pathlib.Path | numpy.ndarray | collections.abc.Sequence[PIL.Image.Image]]
    | None = None,
    prompt_embeds: torch.Tensor | None = None,
    negative_prompt_embeds: torch.Tensor | None = None,
    num_videos_per_prompt: int = 1,
    generator: torch.Generator | collections.abc.Sequence[torch.Generator] | None = None,
    latents: torch.Tensor | None = None,
    output_type: str = "np",
    return_dict: bool = True,
    attention_kwargs: dict[str, object] | None = None,
    callback_on_step_end: collections.abc.Callable[..., collections.abc.Mapping[str, torch.Tensor] | None]
    | None = None,
    callback_on_step_end_tensor_inputs: collections.abc.Sequence[str] = ("latents",),
    max_sequence_length: int | None = None,
) -> videogen.pipelines.pixels.VideoOutput:
    """Make videos: text_to_video, image_to_video, v2v-5B.

    What is left out, or None, is as published for the model. Several videos are made one after another; if a
    callback interrupts one, those after it are not made.

    Args:
        prompt: what the video shows; a list makes a video of each, or gives each segment of a long video
            its own
        negative_prompt: what it should not show; used when guidance is on
        resolution: size class, such as 720P; the shape follows the input
        size: one of the model's supported sizes
        height: exact height in pixels (with --width)
        width: exact width in pixels (with --height)
        duration: length in seconds
        num_frames: length in frames, 4k+1; overrides --duration
        fps: frames per second of the file
        num_inference_steps: denoising steps
        guidance_scale: text guidance; 1 is off and costs one forward per step
        shift: shift of the noise schedule
        sample_solver: how a step is taken; lcm: for weights distilled to a few steps
        input_image: first frame
        input_video: video to continue
        color_match: match the colours of new frames to the input's last
        image: input_image, in diffusers
        video: input_video, in diffusers
        prompt_embeds: what encode_prompt returns, in place of a prompt
        negative_prompt_embeds: what encode_prompt returns, in place of a prompt
        num_videos_per_prompt: videos of each prompt, made one after another
        generator: source of the random draws, one for all videos or one for each; None draws a seed
        latents: initial noise, [videos, C, F, h, w], in place of the first draw
        output_type: 'np' float [videos, F, H, W, 3] in [0, 1], 'pt' [videos, F, 3, H, W], 'pil' a list of
            images for each video, 'uint8' [videos, F, H, W, 3], or 'latent' [videos, C, F, h, w]
        return_dict: False returns the tuple (frames,)
        attention_kwargs: handed to the transformer; {"scale": s} scales loaded LoRA layers
        callback_on_step_end: called as (pipeline, index, timestep, tensors) after every step; may return
            tensors to go on with
        callback_on_step_end_tensor_inputs: tensors that the callback gets; latents, prompt_embeds,
            negative_prompt_embeds
        max_sequence_length: rows of an encoded prompt, as published unless given; longer prompts are cut

    Returns:
        VideoOutput: ``frames``, of one video after another, in the form that ``output_type`` names.

    Raises:
        InputError: an argument that cannot be used; the message says what is allowed and what is near.
    """

def hunyuan_image_to_video(
    self: object,
    prompt: str
    | collections.abc.Sequence[str]
    | collections.abc.Sequence[collections.abc.Sequence[str]]
    | None = None,
    *,
    negative_prompt: str | collections.abc.Sequence[str] | None = None,
    input_image: PIL.Image.Image
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image | numpy.ndarray]
    | None = None,
    resolution: str | None = None,
    size: tuple[int, int] | None = None,
    height: int | None = None,
    width: int | None = None,
    duration: float | None = None,
    num_frames: int | None = None,
    fps: int | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | tuple[float, float] | None = None,
    embedded_cfg_scale: float | None = None,
    shift: float | None = None,
    i2v_stability: bool | None = None,
    no_riflex: bool | None = None,
    image: PIL.Image.Image
    | numpy.ndarray
    | collections.abc.Sequence[PIL.Image.Image | numpy.ndarray]
    | None = None,
    true_cfg_scale: float | tuple[float, float] | None = None,
    prompt_template: collections.abc.Mapping[str, typing.Any] | None = None,
    prompt_embeds: torch.Tensor | None = None,
    pooled_prompt_embeds: torch.Tensor | None = None,
    prompt_attention_mask: torch.Tensor | None = None,
    negative_prompt_embeds: torch.Tensor | None = None,
    negative_pooled_prompt_embeds: torch.Tensor | None = None,
    negative_prompt_attention_mask: torch.Tensor | None = None,
    num_videos_per_prompt: int = 1,
    generator: torch.Generator | collections.abc.Sequence[torch.Generator] | None = None,
    latents: torch.Tensor | None = None,
    output_type: str = "np",
    return_dict: bool = True,
    attention_kwargs: dict[str, object] | None = None,
    callback_on_step_end: collections.abc.Callable[..., collections.abc.Mapping[str, torch.Tensor] | None]
    | None = None,
    callback_on_step_end_tensor_inputs: collections.abc.Sequence[str] = ("latents",),
    max_sequence_length: int | None = None,
) -> videogen.pipelines.pixels.VideoOutput:
    """Make videos: hunyuan_image_to_video.

    What is left out, or None, is as published for the model. Several videos are made one after another; if a
    callback interrupts one, those after it are not made.

    Args:
        prompt: what the video shows; a list makes a video of each, or gives each segment of a long video
            its own
        negative_prompt: what it should not show; used when guidance is on
        input_image: first frame
        resolution: size class, such as 720P; the shape follows the input
        size: one of the model's supported sizes
        height: exact height in pixels (with --width)
        width: exact width in pixels (with --height)
        duration: length in seconds
        num_frames: length in frames, 4k+1; overrides --duration
        fps: frames per second of the file
        num_inference_steps: denoising steps
        guidance_scale: text guidance; 1 is off and costs one forward per step
        embedded_cfg_scale: distilled guidance
        shift: shift of the noise schedule
        i2v_stability: keep close to the first frame (the default, with --shift 7)
        no_riflex: plain positions in videos of more than 192 frames, which then repeat
        image: input_image, in diffusers
        true_cfg_scale: guidance_scale, in diffusers
        prompt_template: as in diffusers
        prompt_embeds: what encode_prompt returns, in place of a prompt
        pooled_prompt_embeds: what encode_prompt returns, in place of a prompt
        prompt_attention_mask: what encode_prompt returns, in place of a prompt
        negative_prompt_embeds: what encode_prompt returns, in place of a prompt
        negative_pooled_prompt_embeds: what encode_prompt returns, in place of a prompt
        negative_prompt_attention_mask: what encode_prompt returns, in place of a prompt
        num_videos_per_prompt: videos of each prompt, made one after another
        generator: source of the random draws, one for all videos or one for each; None draws a seed
        latents: initial noise, [videos, C, F, h, w], in place of the first draw
        output_type: 'np' float [videos, F, H, W, 3] in [0, 1], 'pt' [videos, F, 3, H, W], 'pil' a list of
            images for each video, 'uint8' [videos, F, H, W, 3], or 'latent' [videos, C, F, h, w]
        return_dict: False returns the tuple (frames,)
        attention_kwargs: handed to the transformer; {"scale": s} scales loaded LoRA layers
        callback_on_step_end: called as (pipeline, index, timestep, tensors) after every step; may return
            tensors to go on with
        callback_on_step_end_tensor_inputs: tensors that the callback gets; latents, prompt_embeds,
            negative_prompt_embeds
        max_sequence_length: rows of an encoded prompt, as published unless given; longer prompts are cut

    Returns:
        VideoOutput: ``frames``, of one video after another, in the form that ``output_type`` names.

    Raises:
        InputError: an argument that cannot be used; the message says what is allowed and what is near.
    """
