"""The command line surface as data: one row per flag.

``cli.py`` builds parser, help and checks from this table; config, metadata and job files go through the same
rows. Adding a flag is adding a row (and changing the test that holds the set).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
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

V3_EXTENSION = ("single_shot_extension", "shot_switching_extension")
V2V = ("v2v-14B", "v2v-5B")
WAN_BASE = ("text_to_video", "image_to_video")
DF = ("diffusion_forcing",)
AVATAR = ("talking_avatar",)
HUNYUAN = ("hunyuan_image_to_video",)
R2V = ("reference_to_video",)
V2 = (*WAN_BASE, *DF)
CHAIN = ("generate_continuous",)
CACHED = (*R2V, *V3_EXTENSION, *V2)  # tasks whose TeaCache coefficients are known
TASK_NAMES = (*R2V, *V3_EXTENSION, *AVATAR, *V2, *V2V, *HUNYUAN)


def _but(*names: str) -> tuple[str, ...]:
    return tuple(task for task in TASK_NAMES if task not in names)


@dataclass(frozen=True, slots=True)
class Option:
    """One flag. ``parse`` is None for switches; ``tasks`` is None when every task uses it.

    ``about_run`` marks flags that speak about the whole run and not about one video: no job line and no
    metadata file may hold them. ``bare`` is the value of a flag that stands alone.
    """

    name: str
    parse: Callable[[str], Any] | None
    help: str
    metavar: str = ""
    aliases: tuple[str, ...] = ()
    tasks: tuple[str, ...] | None = None
    repeat: bool = False
    about_run: bool = False
    bare: str | None = None

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    def used_by(self, task: str) -> bool:
        return self.tasks is None or task in self.tasks

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


def _run(name: str, parse: Callable[[str], Any] | None, help_: str, metavar: str = "") -> Option:
    return Option(name, parse, help_, metavar, about_run=True)


# fmt: off
GROUPS: dict[str, tuple[Option, ...]] = {
    "task and model": (
        Option("task_type", word, "what to make; see --list_tasks", "TASK", ("task",)),
        Option("model_id", word, "a model folder, a hub id, or 'tiny'", "PATH|ID|tiny", ("ckpt_dir",)),
        Option("revision", word, "branch, tag or commit of the hub repository", "REV"),
        Option("download_timeout", real(above=True, example=30),
               "seconds without progress before a download is given up", "SECONDS"),
    ),
    "prompt": (
        Option("prompt", text, "what the video shows", "TEXT"),
        Option("negative_prompt", text, "what it should not show; used when guidance is on", "TEXT",
               ("neg_prompt",)),
        Option("roll_prompts", prompts, "a text file with a prompt per line, one for every roll", "FILE", (),
               (*V3_EXTENSION, *DF)),
        Option("prompt_enhancer", word,
               "let a chat model make the prompt longer first", "[PATH|ID]", (), V2,
               bare="Qwen/Qwen2.5-32B-Instruct"),
        Option("captioner", None, "let models write the prompt from the input video", "", (), DF),
        Option("vlm_path", word,
               "model that describes the input video; OpenGVLab/InternVL3_5-8B-HF unless given, with "
               "--captioner Skywork/SkyCaptioner-V1", "PATH|ID", (), (*V2V, *DF)),
        Option("vlm_device", word, "device of the models that write prompts; --device unless given", "DEVICE",
               (), (*V2V, *V2)),
        Option("custom_prompt", text, "put in front of the description of the input video", "TEXT", (), V2V),
    ),
    "size and length": (
        Option("resolution", upper, "size class; the shape follows the input", "CLASS",
               ("i2v_resolution",)),
        Option("size", size, "one of the model's supported sizes", "W*H"),
        Option("height", pixels, "exact height in pixels (with --width)", "PIXELS"),
        Option("width", pixels, "exact width in pixels (with --height)", "PIXELS"),
        Option("duration", real(above=True, example=5), "length in seconds", "SECONDS", (), _but(*AVATAR)),
        Option("num_frames", whole(1, example=5),
               "length in frames, 4k+1 (talking_avatar: of a clip); overrides --duration", "FRAMES",
               ("frame_num", "video_length"), _but(*V3_EXTENSION)),
        Option("fps", whole(1, 240), "frames per second of the file; the DF models are told", "FPS", (),
               _but(*V3_EXTENSION, *AVATAR)),
    ),
    "inputs": (
        Option("ref_imgs", paths, "1-4 reference images, paths or http(s) URLs; the first fixes the shape",
               "A,B", (), R2V),
        Option("input_image", word,
               "first frame (v2v: the input video's last, where it is at hand without loss)", "FILE|URL",
               ("image", "i2v_image_path"), ("image_to_video", *DF, *AVATAR, *HUNYUAN, *V2V)),
        Option("end_image", word, "what comes right after the last frame (with --input_image)", "FILE|URL",
               (), DF),
        Option("input_video", word, "video to continue", "FILE|URL", ("video", "video_path"),
               (*V3_EXTENSION, *DF, *V2V)),
        Option("input_audio", word, "speech, 0.4 to 200 s: a sound file, or a video's sound", "FILE|URL",
               ("audio",), AVATAR),
        Option("source_fps", rate, "resample the input video from this rate, or from its own ('auto')",
               "FPS|auto", (), V3_EXTENSION),
    ),
    "sampling": (
        Option("seed", seeds, "0 .. 2^63-1, or random; several, as in 1,2,3, make one video each", "N[,N...]",
               ("base_seed",)),
        Option("num_inference_steps", whole(1, 1000), "denoising steps", "N",
               ("sample_steps", "inference_steps", "infer_steps")),
        Option("guidance_scale", guidance,
               "text guidance; 1 is off and costs one forward per step; LOW,HIGH noise for two experts",
               "S[,HIGH]", ("sample_guide_scale", "text_guide_scale", "cfg_scale")),
        Option("guidance_scale_img", real(0, 1000), "reference image guidance", "S", (), R2V),
        Option("guidance_scale_audio", real(0, 1000), "audio guidance", "S", ("audio_guide_scale",), AVATAR),
        Option("embedded_cfg_scale", real(0, 1000), "distilled guidance", "S", (), HUNYUAN),
        Option("shift", real(0, 1000, above=True, example=5), "shift of the noise schedule", "S",
               ("flow_shift", "sample_shift")),
        Option("sample_solver", one_of("unipc", "dpm++", "euler", "lcm"),
               "how a step is taken; lcm: for weights distilled to a few steps", "NAME", (),
               _but(*AVATAR, *HUNYUAN)),
        Option("boundary", real(0, 1), "noise level from which the high-noise expert works (Wan2.2 A14B)",
               "0..1", (), (*WAN_BASE, "v2v-14B")),
        Option("handover", one_of("frames", "latents", "mp4"),
               "what one roll passes to the next: 8-bit frames, as published, or latents; "
               "in a chain frames, or what the mp4 holds, as published", "WHAT", (),
               ("single_shot_extension", *CHAIN)),
        Option("color_match", None, "match the colours of new frames to the input's last", "", (),
               (*V3_EXTENSION, *V2V)),
        Option("noise_device", one_of("cpu", "cuda"),
               "where noise is drawn; cpu gives the same noise on every machine", "DEVICE"),
    ),
    "diffusion forcing": (
        Option("ar_step", whole(0),
               "steps a block of frames is ahead of the next; 0 denoises all together, published: 5", "N", (),
               DF),
        Option("causal_block_size", whole(1),
               "latent frames of a block; must divide those of a segment, 5 is published with --ar_step", "N",
               (), DF),
        Option("causal_attention", None, "blocks see only earlier ones; the released weights cannot", "", (),
               DF),
        Option("base_num_frames", whole(1), "frames of a segment, 4k+1; longer videos are made of several",
               "FRAMES", (), DF),
        Option("overlap_history", whole(1),
               "frames, 4k+1, that a segment knows of what comes before it; 17 or 37 are published", "FRAMES",
               (), DF),
        Option("addnoise_condition", whole(0, 1000),
               "noise level 0..1000 on those frames; 20 makes smoother transitions", "N", (), DF),
    ),
    "avatar": (
        Option("connection_prompt", text,
               "prompt of what is seen (--prompt is for a hidden first clip); 'same' takes --prompt", "TEXT",
               (), AVATAR),
        Option("motion_frame", whole(1), "frames carried to the next clip", "N", (), AVATAR),
        Option("drop_frame", whole(0), "frames cut at the end of a clip", "N", (), AVATAR),
        Option("max_frames_num", whole(1, MAX_FRAMES), "longest video in frames", "N", (), AVATAR),
        Option("audio_track", one_of("original", "normalized"),
               "sound of the file: the input's own, or the 16 kHz mono that drives the lips, as published",
               "WHICH", (), AVATAR),
    ),
    "chain": (
        Option("num_videos", whole(1, 999),
               "how many videos, each with the next seed (default 1)", "N", (),
               (*CHAIN, *HUNYUAN)),
        Option("no_vlm", None, "no descriptions: --custom_prompt is every video's prompt", "", (), CHAIN),
        Option("concat", None, "also join the videos to one film, without doubled frames", "", (), CHAIN),
    ),
    "HunyuanVideo": (
        Option("i2v_stability", None, "keep close to the first frame (the default, with --shift 7)", "", (),
               HUNYUAN),
        Option("no_i2v_stability", None, "allow more motion (with --shift 17)", "", (), HUNYUAN),
        Option("i2v_condition_type", one_of("token_replace", "latent_concat"),
               "how the image gets in; the model's weights decide, anything else is an error", "HOW", (),
               HUNYUAN),
        Option("no_riflex", None, "plain positions in videos of more than 192 frames, which then repeat", "",
               (), HUNYUAN),
    ),
    "caching": (
        Option("teacache", None, "TeaCache: skip forwards that would change little; faster, not exact", "",
               (), CACHED),
        Option("teacache_thresh", real(above=True, example=0.2),
               "higher skips more: 0.1 is about twice, 0.2 about three times as fast", "X", (), CACHED),
        Option("use_ret_steps", None, "TeaCache's other variant: the first five steps are always computed",
               "", (), CACHED),
        Option("teacache_model", word,
               "TeaCache coefficients where the model's name does not say: I2V-540P, I2V-720P, T2V-1.3B or "
               "T2V-14B", "NAME", (), CACHED),
        Option("teacache_fixed", None, "count TeaCache's steps per guidance branch, not calls as published",
               "", (), V2),
        Option("cache", step_cache,
               "skip forwards with first_block[:0.05], magcache[:0.06] (measured first with "
               "magcache:calibrate), or extrapolate them with taylorseer[:5] or taylorseer_lite[:5], the "
               "number being diffusers' threshold or interval; faster, not exact", "NAME[:threshold]"),
    ),
    "memory and speed": (
        Option("device", word, "auto, cpu, cuda, cuda:N or mps", "DEVICE"),
        Option("dtype",
               one_of("bfloat16", "float16", "float32", bf16="bfloat16", fp16="float16", fp32="float32"),
               "dtype of the large weights", "DTYPE"),
        Option("offload", None, "keep only the component at work on the GPU", "", ("use_cpu_offload",)),
        Option("low_vram", None, "float8 weights, blocks streamed to the GPU, tiled decode"),
        Option("use_usp", None, "several GPUs at one video: torchrun --nproc_per_node=N ... --use_usp"),
        Option("ulysses_degree", whole(1), "ranks that share the attention heads (all of them unless given)",
               "N"),
        Option("ring_degree", whole(1), "ranks that pass keys and values around; any number, but slower",
               "N"),
        Option("cfg_parallel", None, "the forwards of one step (guidance) on different ranks"),
        Option("attention_backend", one_of("auto", "native", "cudnn", "flash", "flash3", "sage", "xformers"),
               "attention kernel; auto never takes sage, which is not exact", "NAME"),
        Option("compile", None, "compile the transformer blocks (the first step takes minutes)"),
        Option("float8_matmul", None,
               "multiply in float8 in all transformer blocks but the first and the last; not exact; with "
               "--compile, on a GPU of compute capability 8.9 or more"),
        Option("vae_tiling", one_of("auto", "on", "off"), "tiled decode for small GPUs", "MODE"),
        Option("vae_dtype", one_of("float32", "bfloat16", fp32="float32", bf16="bfloat16"),
               "dtype of the decode; bfloat16 is faster and takes less memory, and is not exact", "DTYPE"),
        Option("embedding_cache", word, "keep encoded prompts here; known ones need no text encoder", "DIR"),
        Option("lora", lora, "LoRA weights, repeatable", "PATH[:scale[:high|low]]", repeat=True),
    ),
    "output": (
        Option("output", word, ".mp4, .gif, .npy, or a folder of PNGs", "PATH", ("save_file",)),
        Option("output_dir", word, "folder for <index>_<seed>.mp4", "DIR", ("save_path",)),
        Option("save_latents", word, "also keep the denoised latents", "FILE.safetensors"),
        Option("prepend_input", None, "put the input video before the new frames, at its size", "", (),
               V3_EXTENSION),
        Option("keep_audio", None, "with --prepend_input: also the input's sound", "", (), V3_EXTENSION),
        Option("save_last_frame", word, "also keep the last frame, lossless", "FILE.png", (), V2V),
        Option("new_frames_only", None, "leave the input video out of the file", "", (), DF),
        Option("keep_parts", None, "keep the finished rolls (<name>.parts/) after success", "", (),
               (*V3_EXTENSION, *DF, *AVATAR)),
        _run("overwrite", None, "replace an existing output"),
        _run("resume", None, "skip what is finished"),
        _run("jobs", word, "one prompt per line, or JSON lines of flags", "FILE"),
    ),
    "about": (
        _run("caption_only", None, "print what the models of --vlm_path (--input_video) and --prompt_enhancer"
             " write, as JSON, and stop"),
        _run("dry_run", None, "print the plan and load nothing"),
        _run("config", word, "flags from a YAML file", "FILE.yaml"),
        _run("from_metadata", word, "flags of an earlier result (.json or .mp4)", "FILE"),
        _run("list_tasks", None, "print the tasks and their models"),
        _run("env", None, "print versions and devices, for bug reports"),
        _run("json", None, "print one JSON object per result"),
        _run("quiet", None, "errors only"),
        _run("verbose", None, "more messages, and tracebacks (-v)"),
        _run("version", None, "print the version"),
    ),
}
# fmt: on

OPTIONS: dict[str, Option] = {option.name: option for group in GROUPS.values() for option in group}
FLAG_NAMES: dict[str, str] = {
    spelling: option.name for option in OPTIONS.values() for spelling in (option.name, *option.aliases)
}


# Ways of saying the same thing: what a stronger source says silences the other ways in weaker ones.
ALTERNATIVES: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("resolution",), ("size",), ("height", "width")),
    (("duration",), ("num_frames",)),
    (("output",), ("output_dir",)),
    (("prompt",), ("roll_prompts",), ("captioner",)),
    (("i2v_stability",), ("no_i2v_stability",)),
)


def merge(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """Values of several sources, the strongest last."""
    merged: dict[str, Any] = {}
    for source in sources:
        for ways in ALTERNATIVES:
            said = [way for way in ways if any(name in source for name in way)]
            silenced = [name for way in ways if said and way not in said for name in way]
            for name in silenced:
                merged.pop(name, None)
        merged.update(source)
    return merged


def check_used(task: str, values: Mapping[str, object], available: Collection[str]) -> None:
    """Refuse flags that ``task`` does not use, naming the ``available`` tasks that do.

    Raises:
        InputError: the first such flag.
    """
    for name, value in values.items():
        option = OPTIONS[name]
        if not option.used_by(task):
            users = [name for name in option.tasks or () if name in (*available, *CHAIN)]
            fix = f"used by {', '.join(users)}" if users else "leave it out"
            raise InputError(option.flag, typed(value), f"not used by {task}", fix)


def typed(value: object) -> str | None:
    """A value about as it was given; nothing for a switch."""
    if value is True:
        return None
    parts = value if isinstance(value, list | tuple) else [value]
    return brief(split([f"{part:g}" if isinstance(part, float) else part for part in parts]))
