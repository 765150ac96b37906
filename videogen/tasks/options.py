"""The command line surface as data: one row per flag, with all that is true of it.

Parser, help, checks, hashes and records are made from these rows; config, metadata and job files go through
them too. Adding a flag is adding a row, and naming it in the rows of the tasks that use it.
"""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from enum import Enum
from typing import Any

from videogen.errors import InputError, brief
from videogen.media.audio import MAX_FRAMES
from videogen.tasks.option_types import (
    Reject,
    guidance,
    lora,
    one_of,
    paths,
    pixels,
    prompts,
    rate,
    real,
    seeds,
    size,
    split,
    text,
    upper,
    whole,
    word,
)
from videogen.tasks.step_caches import step_cache


class Unset(Enum):
    """The default of an option that has none of its own: each task gives it one, or it may be left out."""

    UNSET = "unset"


@dataclass(frozen=True, slots=True)
class Option:
    """One flag with all that is true of it; ``parse`` is None for switches.

    Args:
        metavar: what stands for the value in the help text.
        aliases: further spellings.
        common: every task uses it; others are named by the rows of the tasks that do.
        chain: generate_continuous.py takes it, whether its tasks use it or not.
        about_run: it speaks about the whole run, not about one video; no job line or metadata file holds it.
        repeat: every occurrence counts.
        bare: the value of a flag that stands alone.
        default: its value unless given; tasks may have other defaults (configs/*.yaml).
        hashed: its value changes the result, and is part of ``plan_hash``. Files are hashed by content.
        recorded: it belongs into the metadata of a result, as far as it is used.
        by_name: a folder that is hashed and recorded by its own name, not by where it is.
        reloads: another value needs the model loaded again.
        excludes: options that it contradicts.
        instead_of: other ways of saying the same, which it silences in weaker sources.
    """

    name: str
    parse: Callable[[str], Any] | None
    help: str
    _: KW_ONLY
    metavar: str = ""
    aliases: tuple[str, ...] = ()
    common: bool = False
    chain: bool = False
    about_run: bool = False
    repeat: bool = False
    bare: str | None = None
    default: Any = Unset.UNSET
    hashed: bool = True
    recorded: bool = True
    by_name: bool = False
    reloads: bool = False
    excludes: tuple[str, ...] = ()
    instead_of: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def neutral(self) -> Any:
        """Return what it is where nobody speaks of it; not hashed, so that a new option changes no hash."""
        return None if self.default is Unset.UNSET else self.default

    def value(self, given: object) -> Any:
        """Check and convert a value from any source (command line, YAML, JSON).

        Raises:
            InputError: the flag, what was given, what is allowed, and the nearest fix.
        """
        if self.parse is None:
            if isinstance(given, bool):
                return given
            raise InputError(self.flag, given, "is a switch", "give true or false")
        if self.bare is not None and isinstance(given, bool):
            return self.bare if given else None
        if self.repeat:
            return tuple(
                self._parsed(item) for item in (given if isinstance(given, list | tuple) else [given])
            )
        return self._parsed(given)

    def _parsed(self, given: object) -> Any:
        assert self.parse is not None
        if isinstance(given, bool) and "on" in getattr(self.parse, "choices", ()):  # on and off in YAML
            given = "on" if given else "off"
        if given is None or isinstance(given, bool | Mapping):
            raise InputError(self.flag, given, "needs a value", "give one, or leave the flag out")
        try:
            split(given).encode()
            if self.parse in (paths, prompts) and isinstance(given, list | tuple):
                return tuple(word(" ".join(str(item).split())) for item in given)
            return self.parse(split(given))
        except UnicodeEncodeError:
            raise InputError(self.flag, given, "is not UTF-8 text", "check the terminal's encoding") from None
        except Reject as verdict:
            raise InputError(self.flag, given, verdict.allowed, verdict.fix) from None


def switch(name: str, help: str, **facts: Any) -> Option:  # noqa: A002 - as the field is called
    """Return the row of a flag without a value."""
    return Option(name, None, help, **facts)


# fmt: off
GROUPS: dict[str, tuple[Option, ...]] = {
    "task and model": (
        Option("task_type", word, "what to make; see --list_tasks", metavar="TASK", aliases=("task",),
               common=True, hashed=False, recorded=False),
        Option("model_id", word, "a model folder, a hub id, or 'tiny'", metavar="PATH|ID|tiny",
               aliases=("ckpt_dir",), common=True, hashed=False, recorded=False),
        Option("revision", word, "branch, tag or commit of the hub repository", metavar="REV", common=True,
               hashed=False),
        Option("download_timeout", real(above=True, example=30),
               "seconds without progress before a download is given up", metavar="SECONDS", common=True,
               default=30.0, hashed=False, recorded=False),
    ),
    "prompt": (
        Option("prompt", text, "what the video shows", metavar="TEXT", common=True,
               excludes=("roll_prompts",), instead_of=("roll_prompts", "captioner")),
        Option("negative_prompt", text, "what it should not show; used when guidance is on", metavar="TEXT",
               aliases=("neg_prompt",), common=True),
        Option("roll_prompts", prompts, "a text file with a prompt per line, one for every roll",
               metavar="FILE", instead_of=("prompt", "captioner")),
        Option("prompt_enhancer", word, "let a chat model make the prompt longer first", metavar="[PATH|ID]",
               bare="Qwen/Qwen2.5-32B-Instruct", default=None, by_name=True),
        switch("captioner", "let models write the prompt from the input video", default=False,
               instead_of=("prompt", "roll_prompts")),
        Option("vlm_path", word,
               "model that describes the input video; OpenGVLab/InternVL3_5-8B-HF unless given, with "
               "--captioner Skywork/SkyCaptioner-V1", metavar="PATH|ID", default=None, recorded=False,
               by_name=True),
        Option("vlm_device", word, "device of the models that write prompts; --device unless given",
               metavar="DEVICE", default=None, hashed=False, recorded=False),
        Option("custom_prompt", text, "put in front of the description of the input video", metavar="TEXT",
               default=None),
    ),
    "size and length": (
        Option("resolution", upper, "size class; the shape follows the input", metavar="CLASS",
               aliases=("i2v_resolution",), common=True, hashed=False, excludes=("size", "height", "width"),
               instead_of=("size", "height", "width")),
        Option("size", size, "one of the model's supported sizes", metavar="W*H", common=True, hashed=False,
               excludes=("height", "width"), instead_of=("resolution", "height", "width")),
        Option("height", pixels, "exact height in pixels (with --width)", metavar="PIXELS", common=True,
               hashed=False, instead_of=("resolution", "size")),
        Option("width", pixels, "exact width in pixels (with --height)", metavar="PIXELS", common=True,
               hashed=False, instead_of=("resolution", "size")),
        Option("duration", real(above=True, example=5), "length in seconds", metavar="SECONDS", hashed=False,
               instead_of=("num_frames",)),
        Option("num_frames", whole(1, example=5),
               "length in frames, 4k+1 (talking_avatar: of a clip); overrides --duration", metavar="FRAMES",
               aliases=("frame_num", "video_length"), hashed=False, instead_of=("duration",)),
        Option("fps", whole(1, 240), "frames per second of the file; the DF models are told", metavar="FPS"),
    ),
    "inputs": (
        Option("ref_imgs", paths, "1-4 reference images, paths or http(s) URLs; the first fixes the shape",
               metavar="A,B"),
        Option("input_image", word,
               "first frame (v2v: the input video's last, where it is at hand without loss)",
               metavar="FILE|URL", aliases=("image", "i2v_image_path")),
        Option("end_image", word, "what comes right after the last frame (with --input_image)",
               metavar="FILE|URL"),
        Option("input_video", word, "video to continue", metavar="FILE|URL", aliases=("video", "video_path")),
        Option("input_audio", word, "speech, 0.4 to 200 s: a sound file, or a video's sound",
               metavar="FILE|URL", aliases=("audio",)),
        Option("source_fps", rate, "resample the input video from this rate, or from its own ('auto')",
               metavar="FPS|auto"),
    ),
    "sampling": (
        Option("seed", seeds, "0 .. 2^63-1, or random; several, as in 1,2,3, make one video each",
               metavar="N[,N...]", aliases=("base_seed",), common=True, default=(), hashed=False,
               recorded=False),
        Option("num_inference_steps", whole(1, 1000), "denoising steps", metavar="N",
               aliases=("sample_steps", "inference_steps", "infer_steps"), common=True),
        Option("guidance_scale", guidance,
               "text guidance; 1 is off and costs one forward per step; LOW,HIGH noise for two experts",
               metavar="S[,HIGH]", aliases=("sample_guide_scale", "text_guide_scale", "cfg_scale"),
               common=True),
        Option("guidance_scale_img", real(0, 1000), "reference image guidance", metavar="S"),
        Option("guidance_scale_audio", real(0, 1000), "audio guidance", metavar="S",
               aliases=("audio_guide_scale",)),
        Option("embedded_cfg_scale", real(0, 1000), "distilled guidance", metavar="S"),
        Option("shift", real(0, 1000, above=True, example=5), "shift of the noise schedule", metavar="S",
               aliases=("flow_shift", "sample_shift"), common=True),
        Option("sample_solver", one_of("unipc", "dpm++", "euler", "lcm"),
               "how a step is taken; lcm: for weights distilled to a few steps", metavar="NAME"),
        Option("boundary", real(0, 1), "noise level from which the high-noise expert works (Wan2.2 A14B)",
               metavar="0..1"),
        Option("handover", one_of("frames", "latents", "mp4"),
               "what one roll passes to the next: 8-bit frames, as published, or latents; in a chain "
               "frames, or what the mp4 holds, as published", metavar="WHAT", chain=True),
        switch("color_match", "match the colours of new frames to the input's last"),
        Option("noise_device", one_of("cpu", "cuda"),
               "where noise is drawn; cpu gives the same noise on every machine", metavar="DEVICE",
               common=True, default="cpu"),
    ),
    "diffusion forcing": (
        Option("ar_step", whole(0),
               "steps a block of frames is ahead of the next; 0 denoises all together, published: 5",
               metavar="N"),
        Option("causal_block_size", whole(1),
               "latent frames of a block; must divide those of a segment, 5 is published with --ar_step",
               metavar="N"),
        switch("causal_attention", "blocks see only earlier ones; the released weights cannot"),
        Option("base_num_frames", whole(1), "frames of a segment, 4k+1; longer videos are made of several",
               metavar="FRAMES"),
        Option("overlap_history", whole(1),
               "frames, 4k+1, that a segment knows of what comes before it; 17 or 37 are published",
               metavar="FRAMES"),
        Option("addnoise_condition", whole(0, 1000),
               "noise level 0..1000 on those frames; 20 makes smoother transitions", metavar="N"),
    ),
    "avatar": (
        Option("connection_prompt", text,
               "prompt of what is seen (--prompt is for a hidden first clip); 'same' takes --prompt",
               metavar="TEXT"),
        Option("motion_frame", whole(1), "frames carried to the next clip", metavar="N"),
        Option("drop_frame", whole(0), "frames cut at the end of a clip", metavar="N"),
        Option("max_frames_num", whole(1, MAX_FRAMES), "longest video in frames", metavar="N"),
        Option("audio_track", one_of("original", "normalized"),
               "sound of the file: the input's own, or the 16 kHz mono that drives the lips, as published",
               metavar="WHICH"),
    ),
    "chain": (
        Option("num_videos", whole(1, 999), "how many videos, each with the next seed (default 1)",
               metavar="N", chain=True, hashed=False, recorded=False),
        switch("no_vlm", "no descriptions: --custom_prompt is every video's prompt", chain=True),
        switch("concat", "also join the videos to one film, without doubled frames", chain=True),
    ),
    "HunyuanVideo": (
        switch("i2v_stability", "keep close to the first frame (the default, with --shift 7)",
               excludes=("no_i2v_stability",), instead_of=("no_i2v_stability",)),
        switch("no_i2v_stability", "allow more motion (with --shift 17)", instead_of=("i2v_stability",)),
        Option("i2v_condition_type", one_of("token_replace", "latent_concat"),
               "how the image gets in; the model's weights decide, anything else is an error", metavar="HOW"),
        switch("no_riflex", "plain positions in videos of more than 192 frames, which then repeat"),
    ),
    "caching": (
        switch("teacache", "TeaCache: skip forwards that would change little; faster, not exact",
               default=False, excludes=("cache",)),
        Option("teacache_thresh", real(above=True, example=0.2),
               "higher skips more: 0.1 is about twice, 0.2 about three times as fast", metavar="X",
               default=0.2),
        switch("use_ret_steps", "TeaCache's other variant: the first five steps are always computed",
               default=False),
        Option("teacache_model", word,
               "TeaCache coefficients where the model's name does not say: I2V-540P, I2V-720P, T2V-1.3B or "
               "T2V-14B", metavar="NAME", default=None),
        switch("teacache_fixed", "count TeaCache's steps per guidance branch, not calls as published",
               default=False),
        Option("cache", step_cache,
               "skip forwards with first_block[:0.05], magcache[:0.06] (measured first with "
               "magcache:calibrate), or extrapolate them with taylorseer[:5] or taylorseer_lite[:5], the "
               "number being diffusers' threshold or interval; faster, not exact", metavar="NAME[:threshold]",
               common=True, default=None),
    ),
    "memory and speed": (
        Option("device", word, "auto, cpu, cuda, cuda:N or mps", metavar="DEVICE", common=True,
               default="auto", hashed=False, recorded=False, reloads=True),
        Option("dtype",
               one_of("bfloat16", "float16", "float32", bf16="bfloat16", fp16="float16", fp32="float32"),
               "dtype of the large weights", metavar="DTYPE", common=True, default="bfloat16", reloads=True),
        switch("offload", "keep only the component at work on the GPU", aliases=("use_cpu_offload",),
               common=True, default=False, hashed=False, reloads=True, excludes=("float8_matmul",)),
        switch("low_vram", "float8 weights, blocks streamed to the GPU, tiled decode", common=True,
               default=False, reloads=True, excludes=("float8_matmul", "use_usp")),
        switch("use_usp", "several GPUs at one video: torchrun --nproc_per_node=N ... --use_usp", common=True,
               default=False, hashed=False, recorded=False),
        Option("ulysses_degree", whole(1), "ranks that share the attention heads (all of them unless given)",
               metavar="N", common=True, default=None, hashed=False, recorded=False),
        Option("ring_degree", whole(1), "ranks that pass keys and values around; any number, but slower",
               metavar="N", common=True, default=None, hashed=False, recorded=False),
        switch("cfg_parallel", "the forwards of one step (guidance) on different ranks", common=True,
               default=False, hashed=False, recorded=False),
        Option("attention_backend", one_of("auto", "native", "cudnn", "flash", "flash3", "sage", "xformers"),
               "attention kernel; auto never takes sage, which is not exact", metavar="NAME", common=True,
               default="auto", reloads=True),
        switch("compile", "compile the transformer blocks (the first step takes minutes)", common=True,
               default=False, hashed=False, reloads=True),
        switch("float8_matmul",
               "multiply in float8 in all transformer blocks but the first and the last; not exact; with "
               "--compile, on a GPU of compute capability 8.9 or more", common=True, default=False,
               reloads=True),
        Option("vae_tiling", one_of("auto", "on", "off"), "tiled decode for small GPUs", metavar="MODE",
               common=True, default="auto"),
        Option("vae_dtype", one_of("float32", "bfloat16", fp32="float32", bf16="bfloat16"),
               "dtype of the decode; bfloat16 is faster and takes less memory, and is not exact",
               metavar="DTYPE", common=True, default="float32", reloads=True),
        Option("embedding_cache", word, "keep encoded prompts here; known ones need no text encoder",
               metavar="DIR", common=True, default=None, hashed=False, recorded=False),
        Option("lora", lora, "LoRA weights, repeatable", metavar="PATH[:scale[:high|low]]", common=True,
               repeat=True, default=(), hashed=False, reloads=True),
    ),
    "output": (
        Option("output", word, ".mp4, .gif, .npy, or a folder of PNGs", metavar="PATH",
               aliases=("save_file",), common=True, hashed=False, recorded=False, excludes=("output_dir",),
               instead_of=("output_dir",)),
        Option("output_dir", word, "folder for <index>_<seed>.mp4", metavar="DIR", aliases=("save_path",),
               common=True, hashed=False, recorded=False, instead_of=("output",)),
        Option("save_latents", word, "also keep the denoised latents", metavar="FILE.safetensors",
               common=True, hashed=False, recorded=False),
        switch("prepend_input", "put the input video before the new frames, at its size"),
        switch("keep_audio", "with --prepend_input: also the input's sound"),
        Option("save_last_frame", word, "also keep the last frame, lossless", metavar="FILE.png",
               hashed=False, recorded=False),
        switch("new_frames_only", "leave the input video out of the file"),
        switch("keep_parts", "keep the finished rolls (<name>.parts/) after success", hashed=False),
        switch("overwrite", "replace an existing output", about_run=True, common=True),
        switch("resume", "skip what is finished", about_run=True, common=True),
        Option("jobs", word, "one prompt per line, or JSON lines of flags", metavar="FILE", about_run=True,
               common=True),
    ),
    "about": (
        switch("caption_only",
               "print what the models of --vlm_path (--input_video) and --prompt_enhancer write, as JSON, "
               "and stop", about_run=True, common=True),
        switch("dry_run", "print the plan and load nothing", about_run=True, common=True),
        Option("config", word, "flags from a YAML file", metavar="FILE.yaml", about_run=True, common=True),
        Option("from_metadata", word, "flags of an earlier result (.json or .mp4)", metavar="FILE",
               about_run=True, common=True),
        switch("list_tasks", "print the tasks and their models", about_run=True, common=True),
        switch("env", "print versions and devices, for bug reports", about_run=True, common=True),
        switch("json", "print one JSON object per result", about_run=True, common=True),
        switch("quiet", "errors only", about_run=True, common=True),
        switch("verbose", "more messages, and tracebacks (-v)", about_run=True, common=True),
        switch("version", "print the version", about_run=True, common=True),
    ),
}
# fmt: on

OPTIONS: dict[str, Option] = {option.name: option for group in GROUPS.values() for option in group}
FLAG_NAMES: dict[str, str] = {
    spelling: option.name for option in OPTIONS.values() for spelling in (option.name, *option.aliases)
}


def defaults() -> dict[str, Any]:
    """Return the options that have a default of their own, with it."""
    return {name: option.default for name, option in OPTIONS.items() if option.default is not Unset.UNSET}


def merge(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of several sources, the strongest last."""
    merged: dict[str, Any] = {}
    for source in sources:
        for name in source:
            for other in OPTIONS[name].instead_of:
                if other not in source:
                    merged.pop(other, None)
        merged.update(source)
    return merged


def check_conflicts(values: Mapping[str, Any]) -> None:
    """Refuse options that contradict each other.

    Raises:
        InputError: the first pair.
    """
    for name, option in OPTIONS.items():
        for other in option.excludes:
            if values.get(name) and values.get(other):
                raise InputError(option.flag, None, f"not together with --{other}", "choose one of the two")


def typed(value: object) -> str | None:
    """A value about as it was given; nothing for a switch."""
    if value is True:
        return None
    parts = value if isinstance(value, list | tuple) else [value]
    return brief(split([f"{part:g}" if isinstance(part, float) else part for part in parts]))
