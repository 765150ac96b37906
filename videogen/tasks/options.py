"""The command line surface as data: one typed field per flag, with all that is true of it.

Parser, help, checks, hashes and records are made from these rows. ``Options`` are all groups together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from videogen.media.download import display_name
from videogen.media.inputs import MOST_FRAMES
from videogen.tasks import option_types as types
from videogen.tasks.adapter_options import Adapters
from videogen.tasks.kernels import BACKENDS
from videogen.tasks.list_options import Lists
from videogen.tasks.option import Needs, Option, row, switch
from videogen.tasks.output_options import Output, Review, Watching
from videogen.tasks.server_options import Server
from videogen.tasks.step_caches import step_cache

Scale = float | tuple[float, float]
"""Of the guidance; low and high noise, where there are two experts."""
SEVERAL_GPUS = Needs("use_usp", "is for several GPUs")


# Groups have no more methods than they need: each costs time at the start. One Size is made without others.
# fmt: off
@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Model:
    """Which model does what."""

    task_type: str | None = row(types.word, "what to make", metavar="TASK", aliases=("task",),
        usual=True, common=True, hashed=False)
    model_id: str | None = row(types.path, "a folder, hub id, 'miniature' or 'tiny'", metavar="PATH|ID|tiny",
        aliases=("ckpt_dir",), usual=True, common=True, hashed=False, names_model=True)


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class ModelFiles:
    """Which version of the model, and files in place of its own."""

    revision: str | None = row(types.word, "branch, tag or commit of the hub repository", metavar="REV",
        common=True, hashed=False, names_weights=True)
    transformer: tuple[types.WeightFile, ...] = row(types.expert_file,
        "one file in place of the model's transformer, also float8 or GGUF; repeatable for two experts",
        metavar="FILE[:high|low]", common=True, repeat=True, default=(), hashed=False, reloads=True,
        record_as=types.recorded_files, sets_speed=True)
    text_encoder: types.WeightFile | None = row(types.weight_file,
        "one file in place of the model's text encoder", metavar="FILE", common=True, hashed=False,
        reloads=True, record_as=types.recorded_file)
    vae: types.WeightFile | None = row(types.weight_file, "one file in place of the model's VAE",
        metavar="FILE", common=True, hashed=False, reloads=True, record_as=types.recorded_file)
    download_timeout: float = row(types.real(above=True, example=30),
        "seconds without progress before a download is given up", metavar="SECONDS", common=True,
        default=30.0, hashed=False, recorded=False)


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Prompt:
    """What the video shows, and who writes that."""

    prompt: str | None = row(types.text, "what the video shows", metavar="TEXT", usual=True, common=True,
        is_prompt=True, shows=True, excludes=("roll_prompts",), instead_of=("roll_prompts", "captioner"),
        encoded=True)
    negative_prompt: str = row(types.text, "what it should not show; used when guidance is on",
        metavar="TEXT", aliases=("neg_prompt",), common=True, needs_guidance=True, encoded=True)
    roll_prompts: tuple[str, ...] | None = row(types.prompts,
        "a text file with a prompt per line, one for every segment", metavar="FILE", is_prompt=True,
        shows=True, encoded=True, instead_of=("prompt", "captioner"))
    prompt_enhancer: str | None = row(types.path, "let a chat model make the prompt longer first",
        metavar="[PATH|ID]", bare="Qwen/Qwen2.5-32B-Instruct", by_name=True, record_as=display_name,
        names_model=True, writes_prompt=True)
    captioner: bool = switch("let models write the prompt from the input video", shows=True,
        writes_prompt=True, needs=Needs("input_video", "needs --input_video"),
        instead_of=("prompt", "roll_prompts"))
    vlm_path: str | None = row(types.path,
        "model that describes the input video", metavar="PATH|ID", recorded=False, by_name=True,
        names_model=True, writes_prompt=True, useless_without="captioner")
    vlm_device: str | None = row(types.device,
        "device of the models that write prompts; --device unless given", metavar="DEVICE", hashed=False,
        recorded=False, writes_prompt=True, names_device=True)
    custom_prompt: str | None = row(types.text, "put in front of the description of the input video",
        metavar="TEXT", writes_prompt=True)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Size:
    """Size and length."""

    resolution: str = row(types.upper, "size class, such as 720P; the shape follows the input",
        metavar="CLASS", aliases=("i2v_resolution",), usual=True, common=True, hashed=False, lists_sizes=True,
        excludes=("size", "height", "width"), instead_of=("size", "height", "width"), plan_row="video")
    size: tuple[int, int] | None = row(types.size, "one of the model's supported sizes", metavar="W*H",
        common=True, hashed=False, excludes=("height", "width"), instead_of=("resolution", "height", "width"),
        plan_row="video")
    height: int | None = row(types.pixels, "exact height in pixels (with --width)", metavar="PIXELS",
        common=True, hashed=False, instead_of=("resolution", "size"), plan_row="video")
    width: int | None = row(types.pixels, "exact width in pixels (with --height)", metavar="PIXELS",
        common=True, hashed=False, instead_of=("resolution", "size"), plan_row="video")
    duration: float | None = row(types.real(0, 86_400, above=True, example=5), "length in seconds",
        metavar="SECONDS", usual=True, hashed=False, instead_of=("num_frames",), plan_row="video")
    num_frames: int | None = row(types.whole(1, example=5),
        "length in frames, 4k+1; overrides --duration", metavar="FRAMES",
        aliases=("frame_num", "video_length"), hashed=False, instead_of=("duration",), plan_row="video")
    fps: int = row(types.whole(1, 240), "frames per second of the file", metavar="FPS", plan_row="video")


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class InputFiles:
    """Files that a video is made from."""

    ref_imgs: tuple[str, ...] | None = row(types.paths,
        "1-4 reference images, paths or http(s) URLs; the first fixes the shape", metavar="A,B", usual=True)
    input_image: str | None = row(types.path, "first frame", metavar="FILE|URL",
        aliases=("image", "i2v_image_path"), call_names=("image",), usual=True, set_by_chain=True)
    end_image: str | None = row(types.path, "last frame, with --input_image", metavar="FILE|URL",
        call_names=("last_image",))
    input_video: str | None = row(types.path, "video to continue", metavar="FILE|URL",
        aliases=("video", "video_path"), call_names=("video",), usual=True, shows=True)
    input_audio: str | None = row(types.path, "speech, 0.4 s to --max_frames_num: a sound file, or a video's",
        metavar="FILE|URL", aliases=("audio",))
    source_fps: float | None = row(types.rate,
        "resample the input video from this rate, or from its own ('auto')", metavar="FPS|auto",
        record_as=types.recorded_rate)


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Sampling:
    """How noise becomes a video."""

    seed: tuple[int, ...] = row(types.seeds,
        "0 .. 2^63-1, or random; several, as in 1,2,3, make one video each", metavar="N[,N...]",
        aliases=("base_seed",), usual=True, common=True, default=(), hashed=False, drawn=True)
    num_inference_steps: int = row(types.whole(1, 1000), "denoising steps", metavar="N",
        aliases=("sample_steps", "inference_steps", "infer_steps"), common=True, in_schedule=True,
        plan_row="sampling")
    guidance_scale: Scale = row(types.guidance,
        "text guidance; 1 is off and costs one forward per step", metavar="S[,HIGH]",
        aliases=("sample_guide_scale", "text_guide_scale", "cfg_scale"), common=True, plan_row="sampling")
    guidance_scale_img: float = row(types.real(0, 1000), "reference image guidance", metavar="S",
        needs_guidance=True, plan_row="sampling")
    guidance_scale_audio: float = row(types.real(0, 1000), "audio guidance", metavar="S",
        aliases=("audio_guide_scale",), plan_row="sampling")
    embedded_cfg_scale: float = row(types.real(0, 1000), "distilled guidance", metavar="S",
        plan_row="sampling")
    shift: float = row(types.real(0, 1000, above=True, example=5), "shift of the noise schedule", metavar="S",
        aliases=("flow_shift", "sample_shift"), common=True, in_schedule=True, plan_row="sampling")
    sample_solver: str = row(types.one_of("unipc", "dpm++", "euler", "lcm"),
        "how a step is taken; lcm: for weights distilled to a few steps", metavar="NAME", in_schedule=True,
        plan_row="sampling")
    boundary: float = row(types.real(0, 1),
        "noise level from which the high-noise expert works, if there are two", metavar="0..1",
        in_schedule=True, plan_row="sampling")
    handover: str = row(types.one_of("frames", "latents", "mp4"),
        "what one segment passes to the next: 8-bit frames, as published, or latents", metavar="WHAT",
        chain=True, chain_default="frames")
    color_match: bool = switch("match the colours of new frames to the input's last")
    noise_device: str = row(types.one_of("cpu", "cuda"),
        "where noise is drawn; cpu gives the same noise on every machine", metavar="DEVICE", common=True,
        default="cpu", names_device=True)

    @property
    def guided(self) -> bool:
        """Return whether there is a text guidance above 1, for any expert."""
        scale = self.guidance_scale
        return max(scale if isinstance(scale, tuple) else (scale,)) > 1


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Forcing:
    """Diffusion forcing: segments and blocks."""

    ar_step: int = row(types.whole(0),
        "steps a block of frames is ahead of the next; 0 denoises all together, published: 5", metavar="N",
        in_schedule=True, plan_row="sampling")
    causal_block_size: int = row(types.whole(1),
        "latent frames of a block; must divide those of a segment, 5 is published with --ar_step",
        metavar="N", in_schedule=True)
    causal_attention: bool = switch("blocks see only earlier ones; the released weights cannot",
        sets_speed=True)
    base_num_frames: int = row(types.whole(1), "frames of a segment, 4k+1; longer videos are made of several",
        metavar="FRAMES", in_schedule=True, plan_row="sampling")
    overlap_history: int | None = row(types.whole(1),
        "frames, 4k+1, that a segment knows of what comes before it; 17 or 37 are published",
        metavar="FRAMES", in_schedule=True, plan_row="sampling")
    addnoise_condition: int = row(types.whole(0, 1000),
        "noise level 0..1000 on those frames; 20 makes smoother transitions", metavar="N")


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Avatar:
    """The talking avatar's clips and sound."""

    connection_prompt: str = row(types.text,
        "prompt of what is seen (--prompt is for a hidden first clip); 'same' takes --prompt", metavar="TEXT",
        encoded=True)
    motion_frame: int = row(types.whole(1), "frames carried to the next clip", metavar="N", in_schedule=True)
    drop_frame: int = row(types.whole(0), "frames cut at the end of a clip", metavar="N")
    max_frames_num: int = row(types.whole(1, MOST_FRAMES), "longest video in frames", metavar="N")
    audio_track: str = row(types.one_of("original", "normalized"),
        "sound of the file: the input's own, or the 16 kHz mono that drives the lips, as published",
        metavar="WHICH")


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Chain:
    """Several videos."""

    num_videos: int | None = row(types.whole(1, 999), "how many videos, each with the next seed (default 1)",
        metavar="N", chain=True, chain_default=12, hashed=False, recorded=False)
    no_vlm: bool = switch("no descriptions: --custom_prompt is every video's prompt", chain=True)
    concat: bool = switch("also join the videos to one film, without doubled frames", chain=True)


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class FirstFrame:
    """How HunyuanVideo keeps to its first frame, and long videos from repeating."""

    i2v_stability: bool | None = switch("keep close to the first frame (the default, with --shift 7)",
        excludes=("no_i2v_stability",), default=True, instead_of=("no_i2v_stability",))
    no_i2v_stability: bool = switch("allow more motion (with --shift 17)", instead_of=("i2v_stability",))
    i2v_condition_type: str = row(types.one_of("token_replace", "latent_concat"),
        "how the image gets in; the model's weights decide, anything else is an error", metavar="HOW")
    no_riflex: bool = switch("plain positions in videos of more than 192 frames, which then repeat")


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Caching:
    """Forwards that are left out."""

    teacache: bool = switch("TeaCache: skip forwards that would change little; faster, not exact",
        excludes=("cache",), plan_row="sampling", sets_speed=True)
    teacache_thresh: float = row(types.real(above=True, example=0.2),
        "higher skips more: 0.1 is about twice, 0.2 about three times as fast", metavar="X", default=0.2,
        useless_without="teacache", sets_speed=True)
    use_ret_steps: bool = switch("TeaCache's other variant: the first five steps are always computed",
        useless_without="teacache", sets_speed=True)
    teacache_model: str | None = row(types.word,
        "TeaCache coefficients where the model's name does not say: I2V-540P, I2V-720P, T2V-1.3B or T2V-14B",
        metavar="NAME", useless_without="teacache")
    teacache_fixed: bool = switch("count TeaCache's steps per guidance branch, not calls as published",
        useless_without="teacache")
    cache: str | None = row(step_cache,
        "skip forwards with first_block[:0.05], magcache[:0.06] (measured first with magcache:calibrate), "
        "or extrapolate them with taylorseer[:5] or taylorseer_lite[:5], the number being diffusers' "
        "threshold or interval; faster, not exact", metavar="NAME[:threshold]", common=True,
        plan_row="sampling", sets_speed=True)


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Runtime:
    """Devices, memory and speed."""

    device: str = row(types.device, "auto, cpu, cuda, cuda:N or mps", metavar="DEVICE", common=True,
        default="auto", hashed=False, recorded=False, reloads=True, names_device=True)
    dtype: str = row(types.dtype_of("bfloat16", "float16", "float32"), "dtype of the large weights",
        metavar="DTYPE", common=True, default="bfloat16", reloads=True, sets_speed=True)
    offload: bool = switch("keep only the component at work on the GPU", aliases=("use_cpu_offload",),
        common=True, hashed=False, reloads=True, excludes=("float8_matmul",), useless_with=("low_vram",),
        sets_speed=True)
    low_vram: bool = switch("for small GPUs: float8 weights, blocks streamed to the GPU, tiled decode",
        usual=True, common=True, reloads=True, excludes=("float8_matmul", "use_usp"), sets_speed=True)
    use_usp: bool = switch("several GPUs at one video: torchrun --nproc_per_node=N ... --use_usp",
        common=True, hashed=False, recorded=False)
    ulysses_degree: int | None = row(types.whole(1),
        "ranks that share the attention heads (all of them unless given)", metavar="N", common=True,
        hashed=False, recorded=False, needs=SEVERAL_GPUS)
    ring_degree: int | None = row(types.whole(1),
        "ranks that pass keys and values around; any number, but slower", metavar="N", common=True,
        hashed=False, recorded=False, needs=SEVERAL_GPUS)
    cfg_parallel: bool = switch("the forwards of one step (guidance) on different ranks", common=True,
        hashed=False, recorded=False, needs=SEVERAL_GPUS)
    attention_backend: str = row(
        types.one_of("auto", *BACKENDS, sdpa="native", flash_attn="flash", sageattn="sage"),
        "attention kernel; auto never takes sage, which is not exact", metavar="NAME", common=True,
        default="auto", reloads=True, sets_speed=True)
    compile: bool = switch("compile the transformer blocks (the first step takes minutes)", common=True,
        hashed=False, reloads=True, sets_speed=True)
    float8_matmul: bool = switch(
        "multiply in float8 in all transformer blocks but the first and the last; not exact; with "
        "--compile, on a GPU of compute capability 8.9 or more", common=True, reloads=True, sets_speed=True)
    quantize: str | None = row(types.one_of("int8", "int4", "float8", fp8="float8"),
        "transformer weights in 8 or 4 bits, for less memory on any GPU; not exact", metavar="FORMAT",
        common=True, reloads=True, excludes=("low_vram", "float8_matmul"), sets_speed=True)
    vae_tiling: str = row(types.one_of("auto", "on", "off"), "tiled decode for small GPUs", metavar="MODE",
        common=True, default="auto")
    vae_dtype: str = row(types.dtype_of("float32", "bfloat16"),
        "dtype of the decode; bfloat16 is faster and takes less memory, and is not exact", metavar="DTYPE",
        common=True, default="float32", reloads=True, sets_speed=True)
    embedding_cache: str | None = row(types.folder,
        "keep encoded prompts here; known ones need no text encoder", metavar="DIR", common=True,
        hashed=False, recorded=False)


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Existing:
    """What is there already."""

    overwrite: bool = switch("replace an existing output", about_run=True)
    resume: bool = switch("skip what is finished", about_run=True)


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class About:
    """What the run does besides."""

    caption_only: bool = switch(
        "print what the models of --vlm_path (--input_video) and --prompt_enhancer write, as JSON, and stop",
        about_run=True, answers=True, set_by_chain=True, writes_prompt=True)
    dry_run: bool = switch("print the plan and load nothing", usual=True, about_run=True, answers=True)
    config: str | None = row(types.path, "flags from a YAML file", metavar="FILE.yaml", about_run=True,
        command_line_only=True)
    from_metadata: str | None = row(types.file_path,
        "flags of an earlier result (.json, .mp4), or of all in a --bundle (.zip)", metavar="FILE",
        about_run=True, command_line_only=True)
    list_tasks: bool = switch("print the tasks and their models", about_run=True, answers=True,
        command_line_only=True)
    env: bool = switch("print versions and devices, for bug reports", about_run=True, answers=True,
        command_line_only=True)
    completion: str | None = row(types.one_of("bash", "zsh"), "print a completion script", metavar="SHELL",
        about_run=True, answers=True, command_line_only=True)
    json: bool = switch("print one JSON object per result", about_run=True)
    progress: str = row(types.one_of("auto", "bars", "lines", "json", "none"),
        "on stderr: bars, stamped lines, or a JSON object per event; auto is bars on a terminal, else lines",
        metavar="HOW", about_run=True, default="auto")
    quiet: bool = switch("errors only", about_run=True)
    verbose: bool = switch("more messages, and tracebacks (-v)", about_run=True)
    version: bool = switch("print the version", about_run=True, answers=True, command_line_only=True)


GROUPS: dict[str, tuple[type, ...]] = {
    "task and model": (Model,), "prompt": (Prompt,), "inputs": (InputFiles,), "size and length": (Size,),
    "sampling": (Sampling,), "diffusion forcing": (Forcing,), "avatar": (Avatar,), "chain": (Chain,),
    "stability": (FirstFrame,), "output": (Output, Existing), "lists": (Lists,), "server": (Server,),
    "memory and speed": (Runtime,), "caching": (Caching,), "weights": (Adapters, ModelFiles),
    "results": (Review,), "about": (About, Watching),
}
# fmt: on

OPTIONS: dict[str, Option] = {
    field.name: replace(field.metadata["option"], name=field.name)
    for groups in GROUPS.values()
    for group in groups
    for field in fields(group)
}
FLAG_NAMES: dict[str, str] = {
    spelling: option.name for option in OPTIONS.values() for spelling in (option.name, *option.aliases)
}


def defaults() -> dict[str, object]:
    """Return the options of a video with the defaults that they have for every task."""
    return {name: option.default for name, option in OPTIONS.items() if not option.about_run}


def merge(*sources: Mapping[str, object]) -> dict[str, Any]:
    """Return the values of several sources, the strongest last."""
    merged: dict[str, Any] = {}
    for source in sources:
        for name in source:
            for other in OPTIONS[name].instead_of:
                if other not in source:
                    merged.pop(other, None)
        merged.update(source)
    return merged


# fmt: off
@dataclass(frozen=True, kw_only=True, repr=False)
class Options(
    Model, Prompt, InputFiles, Size, Sampling, Forcing, Avatar, Chain, FirstFrame, Output, Runtime, Caching,
    Adapters, ModelFiles
):
    """The options of one video, complete; what a task does not use has its default value."""

    @classmethod
    def of(cls, values: Mapping[str, object]) -> Self:
        """Return them from values by name, as ``merge`` gives them."""
        return cls().replace(**values)

    def replace(self, **changes: Any) -> Self:
        """Return them with changes."""
        return replace(self, **changes)


# fmt: on
@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class RunSettings(Existing, Lists, Review, Server, About, Watching):
    """The options that speak about the whole run."""

    @property
    def answers(self) -> bool:
        """Return whether printing something is all there is to do."""
        return any(getattr(self, name) for name, option in OPTIONS.items() if option.answers)

    @classmethod
    def of(cls, values: Mapping[str, object]) -> Self:
        """Return them from values by name, which may hold other options too."""
        known: dict[str, Any] = {name: value for name, value in values.items() if OPTIONS[name].about_run}
        return cls(**known)
