"""The command line surface as data: one row per flag.

``cli.py`` builds the parser, ``--help`` and the checks from this table; ``--config`` files, metadata files
and job files go through the same rows. Adding a flag is adding a row (and changing the test that holds the
set).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from videogen.errors import InputError, brief, nearest

V3_EXTENSION = ("single_shot_extension", "shot_switching_extension")
V2V = ("v2v-14B", "v2v-5B")
WAN_BASE = ("text_to_video", "image_to_video")
TASK_NAMES = (
    "reference_to_video",
    *V3_EXTENSION,
    "talking_avatar",
    *WAN_BASE,
    "diffusion_forcing",
    *V2V,
    "hunyuan_image_to_video",
)
MAX_SEED = 2**63 - 1


def _except(*names: str) -> tuple[str, ...]:
    return tuple(task for task in TASK_NAMES if task not in names)


class Reject(Exception):  # noqa: N818 - a verdict, turned into an InputError that knows the flag
    """A value that a parse function refuses: what is allowed, and the nearest fix."""

    def __init__(self, allowed: str, fix: str) -> None:
        super().__init__(allowed)
        self.allowed, self.fix = allowed, fix


def text(value: str) -> str:
    return value


def word(value: str) -> str:
    if not value.strip():
        raise Reject("must not be empty", "give a value or leave the flag out")
    return value


def upper(value: str) -> str:
    return word(value).upper()


def _number(value: str, kind: type, what: str) -> Any:
    try:
        number = kind(value)
    except ValueError:
        raise Reject(f"must be {what}", "check the spelling") from None
    if not math.isfinite(number):
        raise Reject(f"must be {what}", "nan and inf are not numbers here")
    return number


def positive_int(value: str) -> int:
    number = _number(value, int, "a whole number above 0")
    if number < 1:
        raise Reject("must be a whole number above 0", "the smallest is 1")
    return number


def count(value: str) -> int:
    number = _number(value, int, "a whole number, 0 or more")
    if number < 0:
        raise Reject("must be a whole number, 0 or more", "the smallest is 0")
    return number


def positive(value: str) -> float:
    number = _number(value, float, "a number above 0")
    if number <= 0:
        raise Reject("must be above 0", "see the default in --help")
    return number


def scale(value: str) -> float:
    number = _number(value, float, "a number, 0 or more")
    if number < 0:
        raise Reject("must be 0 or more", "1 switches guidance off")
    return number


def fraction(value: str) -> float:
    number = _number(value, float, "a number between 0 and 1")
    if not 0 <= number <= 1:
        raise Reject("must be between 0 and 1", "0.9 is the published value of Wan2.2-I2V-A14B")
    return number


def multiple_of_16(value: str) -> int:
    number = positive_int(value)
    if number % 16:
        low = max(16, number // 16 * 16)
        raise Reject("must be a multiple of 16", f"nearest {low} or {number // 16 * 16 + 16}")
    return number


def seeds(value: str) -> tuple[int, ...]:
    """Seeds as given; none for 'random' (each run then draws its own)."""
    if value == "random":
        return ()
    numbers = tuple(_number(part, int, "whole numbers, separated by commas") for part in value.split(","))
    if any(not 0 <= number <= MAX_SEED for number in numbers):
        raise Reject(f"must lie between 0 and {MAX_SEED}", "--seed random draws one")
    if len(set(numbers)) < len(numbers):
        raise Reject("must name each seed once", "remove the repeated one")
    return numbers


def paths(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def size(value: str) -> tuple[int, int]:
    """W*H (or WxH) to (width, height) in pixels."""
    parts = value.lower().replace("x", "*").split("*")
    if len(parts) != 2:
        raise Reject("must be WIDTH*HEIGHT", "for example 1280*720")
    return positive_int(parts[0]), positive_int(parts[1])


class Lora(NamedTuple):
    """LoRA weights: file or folder, strength, and the expert they are for ('high', 'low' or None)."""

    path: Path
    scale: float
    expert: str | None


def lora(value: str) -> Lora:
    """PATH[:scale[:high|low]]"""
    path, expert, strength = value, None, 1.0
    head, _, tail = path.rpartition(":")
    if head and tail in ("high", "low"):
        path, expert = head, tail
        head, _, tail = path.rpartition(":")
    if head:
        try:
            path, strength = head, float(tail)
        except ValueError:
            raise Reject("must be PATH[:scale[:high|low]]", f"'{tail}' is not a number") from None
    if not math.isfinite(strength):
        raise Reject("must be PATH[:scale[:high|low]]", "the scale must be a finite number")
    return Lora(Path(path).expanduser(), strength, expert)


def one_of(*choices: str) -> Callable[[str], str]:
    """A parser for a fixed set of words."""

    def parse(value: str) -> str:
        if value in choices:
            return value
        close = nearest(value, choices)
        raise Reject(
            f"must be one of {', '.join(choices)}", f"nearest {close}" if close else f"try {choices[0]}"
        )

    parse.__name__ = "one_of"
    parse.choices = choices  # type: ignore[attr-defined]  # read by the help text
    return parse


@dataclass(frozen=True, slots=True)
class Option:
    """One flag. ``parse`` is None for switches; ``tasks`` is None when every task uses it.

    ``about_run`` marks flags that speak about the whole invocation, not about one video: they may stand on
    the command line only, not in config, metadata or job files.
    """

    name: str
    parse: Callable[[str], Any] | None
    help: str
    metavar: str = ""
    aliases: tuple[str, ...] = ()
    tasks: tuple[str, ...] | None = None
    repeat: bool = False
    about_run: bool = False

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    def used_by(self, task: str) -> bool:
        return self.tasks is None or task in self.tasks

    def value(self, given: object) -> Any:
        """Check and convert a value from any source (command line, YAML, JSON)."""
        if self.parse is None:
            if isinstance(given, bool):
                return given
            raise InputError(self.flag, given, "is a switch", "give true or false")
        if self.repeat:
            return tuple(
                self._parsed(item) for item in (given if isinstance(given, list | tuple) else [given])
            )
        return self._parsed(given)

    def _parsed(self, given: object) -> Any:
        assert self.parse is not None
        if isinstance(given, list | tuple):
            given = ("*" if self.parse is size else ",").join(str(item) for item in given)
        if given is None or isinstance(given, bool | Mapping):
            raise InputError(self.flag, given, "needs a value", "give one, or leave the flag out")
        try:
            return self.parse(str(given))
        except Reject as verdict:
            raise InputError(self.flag, given, verdict.allowed, verdict.fix) from None


GROUPS: dict[str, tuple[Option, ...]] = {
    "task and model": (
        Option("task_type", word, "what to make; see --list_tasks", "TASK", ("task",)),
        Option("model_id", word, "a model folder, a hub id, or 'tiny'", "PATH|ID|tiny", ("ckpt_dir",)),
        Option("revision", word, "branch, tag or commit of the hub repository", "REV"),
        Option(
            "download_timeout", positive, "seconds without progress before a download is given up", "SECONDS"
        ),
    ),
    "prompt": (
        Option("prompt", text, "what the video shows", "TEXT"),
        Option("negative_prompt", text, "what it should not show; used when guidance is on", "TEXT"),
        Option(
            "roll_prompts",
            word,
            "one prompt per line for every roll",
            "FILE",
            (),
            ("diffusion_forcing", *V3_EXTENSION),
        ),
        Option("prompt_enhancer", None, "rewrite the prompt first", "", (), (*WAN_BASE, "diffusion_forcing")),
        Option("vlm_path", word, "captioning model", "PATH|ID", (), V2V),
        Option("vlm_device", word, "device of the captioning model", "DEVICE", (), V2V),
        Option("custom_prompt", text, "put in front of the caption", "TEXT", (), V2V),
    ),
    "size and length": (
        Option(
            "resolution",
            upper,
            "size class; the shape follows the input",
            "CLASS",
            (),
            _except(*V2V),
        ),
        Option("size", size, "one of the model's supported sizes", "W*H"),
        Option("height", multiple_of_16, "exact height in pixels (with --width)", "PIXELS"),
        Option("width", multiple_of_16, "exact width in pixels (with --height)", "PIXELS"),
        Option("duration", positive, "length in seconds", "SECONDS", (), _except("talking_avatar")),
        Option(
            "num_frames",
            positive_int,
            "length in frames, 4k+1; overrides --duration",
            "FRAMES",
            ("frame_num", "video_length"),
            _except(*V3_EXTENSION),
        ),
        Option(
            "fps",
            positive_int,
            "frames per second of the file",
            "FPS",
            (),
            _except(*V3_EXTENSION, "talking_avatar"),
        ),
    ),
    "inputs": (
        Option(
            "ref_imgs",
            paths,
            "1-4 reference images (paths or http(s) URLs); the first fixes the shape",
            "A,B",
            (),
            ("reference_to_video",),
        ),
        Option(
            "input_image",
            word,
            "first frame",
            "FILE|URL",
            ("image",),
            ("image_to_video", "diffusion_forcing", "talking_avatar", "hunyuan_image_to_video"),
        ),
        Option("end_image", word, "last frame", "FILE|URL", (), ("diffusion_forcing",)),
        Option(
            "input_video",
            word,
            "video to continue",
            "FILE|URL",
            ("video", "video_path"),
            (*V3_EXTENSION, "diffusion_forcing", *V2V),
        ),
        Option("input_audio", word, "speech", "FILE|URL", ("audio",), ("talking_avatar",)),
    ),
    "sampling": (
        Option(
            "seed",
            seeds,
            "0 .. 2^63-1; several, as in 1,2,3, make one video each",
            "N[,N...]",
            ("base_seed",),
        ),
        Option(
            "num_inference_steps",
            positive_int,
            "denoising steps",
            "N",
            ("sample_steps", "inference_steps", "infer_steps"),
        ),
        Option(
            "guidance_scale",
            scale,
            "text guidance; 1 is off and costs one forward per step",
            "S",
            ("sample_guide_scale", "text_guide_scale", "cfg_scale"),
        ),
        Option("guidance_scale_img", scale, "reference image guidance", "S", (), ("reference_to_video",)),
        Option(
            "guidance_scale_audio", scale, "audio guidance", "S", ("audio_guide_scale",), ("talking_avatar",)
        ),
        Option("embedded_cfg_scale", scale, "distilled guidance", "S", (), ("hunyuan_image_to_video",)),
        Option("shift", positive, "shift of the noise schedule", "S", ("flow_shift", "sample_shift")),
        Option(
            "sample_solver",
            one_of("unipc", "dpm++", "euler"),
            "how a step is taken",
            "NAME",
            (),
            _except("talking_avatar", "hunyuan_image_to_video"),
        ),
        Option("boundary", fraction, "where the experts change", "0..1", (), (*WAN_BASE, "v2v-14B")),
        Option(
            "noise_device",
            one_of("cpu", "cuda"),
            "where noise is drawn; cpu gives the same noise on every machine",
            "DEVICE",
        ),
    ),
    "diffusion forcing": (
        Option("ar_step", count, "0 is synchronous", "N", (), ("diffusion_forcing",)),
        Option(
            "causal_block_size",
            positive_int,
            "latent frames that share a noise level",
            "N",
            (),
            ("diffusion_forcing",),
        ),
        Option("causal_attention", None, "block-causal attention", "", (), ("diffusion_forcing",)),
        Option("base_num_frames", positive_int, "frames per segment", "FRAMES", (), ("diffusion_forcing",)),
        Option(
            "overlap_history", positive_int, "frames shared by segments", "FRAMES", (), ("diffusion_forcing",)
        ),
        Option(
            "addnoise_condition", count, "noise level of conditioning frames", "N", (), ("diffusion_forcing",)
        ),
    ),
    "avatar": (
        Option("connection_prompt", text, "prompt of the visible clips", "TEXT", (), ("talking_avatar",)),
        Option("motion_frame", positive_int, "frames carried to the next clip", "N", (), ("talking_avatar",)),
        Option("drop_frame", count, "frames cut at the end of a clip", "N", (), ("talking_avatar",)),
        Option("max_frames_num", positive_int, "upper limit of frames", "N", (), ("talking_avatar",)),
    ),
    "HunyuanVideo": (
        Option("i2v_stability", None, "keep close to the first frame", "", (), ("hunyuan_image_to_video",)),
        Option("no_i2v_stability", None, "allow more motion", "", (), ("hunyuan_image_to_video",)),
    ),
    "caching": (
        Option("teacache", None, "skip steps that change little", "", (), (*WAN_BASE, "diffusion_forcing")),
        Option("teacache_thresh", positive, "higher skips more", "X", (), (*WAN_BASE, "diffusion_forcing")),
        Option(
            "use_ret_steps", None, "published retention variant", "", (), (*WAN_BASE, "diffusion_forcing")
        ),
        Option("teacache_model", word, "coefficient table", "NAME", (), (*WAN_BASE, "diffusion_forcing")),
    ),
    "memory and speed": (
        Option("device", word, "auto, cpu, cuda, cuda:N or mps", "DEVICE"),
        Option("dtype", one_of("bfloat16", "float16", "float32"), "dtype of the large weights", "DTYPE"),
        Option("offload", None, "keep only the component at work on the GPU"),
        Option("low_vram", None, "float8 weights, blocks streamed to the GPU, tiled decode"),
        Option("use_usp", None, "several GPUs (not in this version)"),
        Option(
            "attention_backend",
            one_of("auto", "native", "cudnn", "flash", "flash3", "sage", "xformers"),
            "attention kernel; what does not run here falls back to native",
            "NAME",
        ),
        Option("compile", None, "compile the transformer blocks (first step takes minutes)"),
        Option("vae_tiling", one_of("auto", "on", "off"), "tiled decode for small GPUs", "MODE"),
        Option("lora", lora, "LoRA weights, repeatable", "PATH[:scale[:high|low]]", repeat=True),
    ),
    "output": (
        Option("output", word, ".mp4, .gif, .npy, or a folder of PNGs", "PATH", ("save_file",)),
        Option("output_dir", word, "folder for <index>_<seed>.mp4", "DIR"),
        Option("save_latents", word, "also keep the denoised latents", "FILE.safetensors"),
        Option("overwrite", None, "replace an existing output", about_run=True),
        Option("resume", None, "skip what is finished", about_run=True),
        Option("jobs", word, "one prompt per line, or JSON lines of flags", "FILE", about_run=True),
    ),
    "about": (
        Option("dry_run", None, "print the plan and load nothing", about_run=True),
        Option("config", word, "flags from a YAML file", "FILE.yaml", about_run=True),
        Option("from_metadata", word, "flags of an earlier result (.json or .mp4)", "FILE", about_run=True),
        Option("list_tasks", None, "print the tasks and their models", about_run=True),
        Option("env", None, "print versions and devices, for bug reports", about_run=True),
        Option("json", None, "print one JSON object per result", about_run=True),
        Option("quiet", None, "errors only", about_run=True),
        Option("verbose", None, "more messages, and tracebacks (-v)", about_run=True),
        Option("version", None, "print the version", about_run=True),
    ),
}

OPTIONS: dict[str, Option] = {option.name: option for group in GROUPS.values() for option in group}
FLAG_NAMES: dict[str, str] = {
    spelling: option.name for option in OPTIONS.values() for spelling in (option.name, *option.aliases)
}


def check_used(task: str, values: Mapping[str, object]) -> None:
    """Refuse flags that ``task`` does not use, naming the tasks that do."""
    for name in values:
        option = OPTIONS[name]
        if not option.used_by(task):
            raise InputError(
                option.flag,
                brief(values[name]),
                f"not used by {task}",
                f"used by {', '.join(option.tasks or ())}",
            )
