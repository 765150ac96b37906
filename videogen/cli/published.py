"""Commands as the published repositories print them: their flags, tasks and scripts in this project's words.

Flags that this project has under the same name or an alias are not here: they stand in ``tasks/options.py``.
Every other flag of the four command lines has a row in ``ROWS``: what it becomes, why it has no effect here,
or what to do instead.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from videogen import distributed
from videogen.errors import InputError
from videogen.tasks.options import FLAG_NAMES, OPTIONS

WAN22, SKYREELS_V2, HUNYUAN = "Wan-Video/Wan2.2", "SkyworkAI/SkyReels-V2", "Tencent-Hunyuan/HunyuanVideo-I2V"
HUNYUAN_TASK = "hunyuan_image_to_video"
HUNYUAN_FOLDER = "ckpts"  # of the model, unless --model-base says another
EXTENDER = "Qwen/Qwen2.5-14B-Instruct"  # what Wan2.2 makes prompts longer with
YES, NO = ("yes", "true", "t", "y", "1", "on"), ("no", "false", "f", "n", "0", "off")

Given = Mapping[str, str]
"""All flags of a command, by name, with their values."""


@dataclass(frozen=True, slots=True)
class Published:
    """One published flag.

    Args:
        flag: its spelling, in snake_case.
        source: the repository it comes from.
        values: how many words follow it.
        becomes: a flag of this project with '{}' for its value, or all flags given -> words of this project.
        alone: its value where none follows it; '' is published too.
        needs: another flag, without which it has no effect, or which takes its value.
        no_effect: why it has no effect here.
        instead: what to do instead of it; it is refused.
        only: the values that ``no_effect`` is said of; any other becomes something, or is refused with
            ``instead``.
    """

    flag: str
    source: str
    _: KW_ONLY
    values: int = 0
    becomes: str | Callable[[Given], Sequence[str]] | None = None
    alone: str | None = None
    needs: str = ""
    no_effect: str = ""
    instead: str = ""
    only: tuple[str, ...] = ()


def switch_of(value: str) -> bool | None:
    """Return what a word says of a switch; None if it is no such word."""
    return True if value.lower() in YES else False if value.lower() in NO else None


def _several_gpus(flag: str) -> Callable[[Given], Sequence[str]]:
    """Return what becomes of a number of GPUs: torchrun says that there are several."""

    def becomes(given: Given) -> Sequence[str]:
        value, size = given[flag], distributed.get_ranks().size
        option = "ulysses_degree" if flag == "ulysses_size" else flag
        if "use_usp" in given:
            return [f"--{option}={value}"]
        if size > 1:
            return ["--use_usp", f"--{option}={value}"]
        if value == "1":  # one process, one GPU
            return []
        fix = f"torchrun --nproc_per_node={value} generate_video.py ... --use_usp"
        raise InputError(f"--{flag}", value, "is for several GPUs, and one process was started", fix)

    return becomes


def _extend(given: Given) -> Sequence[str]:
    return [f"--prompt_enhancer={given.get('prompt_extend_model') or EXTENDER}"]


def _hunyuan(given: Given) -> Sequence[str]:
    """Return the task, and where the published commands expect the model if it is there."""
    task = [] if "task_type" in given else [f"--task_type={HUNYUAN_TASK}"]
    here = Path(HUNYUAN_FOLDER, "hunyuan-video-i2v-720p").is_dir()
    named = {"model_id", "model_base", "i2v_dit_weight"} & given.keys()
    return [*task, f"--model_id={HUNYUAN_FOLDER}"] if here and not named else task


def _hunyuan_network(given: Given) -> Sequence[str]:
    if given["model"] != "HYVideo-T/2":
        what = "is no network of the image-to-video weights"
        fix = "HYVideo-T/2 is; a model folder or hub id is --model_id"
        raise InputError("--model", given["model"], what, fix)
    return _hunyuan(given)


def _weights(given: Given) -> Sequence[str]:
    """Return the model folder in which a file of weights is where it is published."""
    file = Path(given["i2v_dit_weight"])
    if [parent.name for parent in file.parents][:2] != ["transformers", "hunyuan-video-i2v-720p"]:
        what = "is not in hunyuan-video-i2v-720p/transformers/"
        raise InputError("--i2v_dit_weight", file, what, "give the model's folder with --model_id")
    folder = str(file.parents[2])
    named = folder if folder.startswith(("/", ".", "~")) else f"./{folder}"  # never a hub id
    return [] if {"model_base", "model_id"} & given.keys() else [f"--model_id={named}"]


def _lora(given: Given) -> Sequence[str]:
    return [f"--lora={given['lora_path']}:{given.get('lora_scale', '1.0')}"]


def _suffix(given: Given) -> Sequence[str]:
    suffix = given["save_path_suffix"]
    return [f"--output_dir={given.get('output_dir', './results')}_{suffix}"] if suffix else []


ANOTHER = "it is for animate-14B and s2v-14B; talking_avatar makes a picture speak"
TRAINING = "it is for training"
IGNORED = "the published command ignores it as well"
ENCODERS = "the text encoders have the dtype of --dtype"
# fmt: off
ROWS: dict[str, Published] = {row.flag: row for row in (
    # Wan2.2, generate.py
    Published("offload_model", WAN22, values=1, becomes="--offload={}", alone="True"),
    Published("convert_model_dtype", WAN22,
        no_effect="the large weights are bfloat16 already, unless --dtype says otherwise"),
    Published("t5_cpu", WAN22,
        no_effect="the text encoder works on the GPU before the video model; --offload takes it off again"),
    Published("t5_fsdp", WAN22, no_effect="every GPU holds the whole text encoder; --offload takes it off"),
    Published("dit_fsdp", WAN22,
        no_effect="every GPU holds the whole model; where it does not fit, add --offload"),
    Published("ulysses_size", WAN22, values=1, becomes=_several_gpus("ulysses_size")),
    Published("use_prompt_extend", WAN22, becomes=_extend),
    Published("prompt_extend_method", WAN22, values=1, needs="use_prompt_extend",
        only=("local_qwen", "dashscope"),
        no_effect="a model on this machine makes the prompt longer (--prompt_enhancer)",
        instead="leave it out; --prompt_enhancer names a model"),
    Published("prompt_extend_model", WAN22, values=1, needs="use_prompt_extend"),
    Published("prompt_extend_target_lang", WAN22, values=1, needs="use_prompt_extend",
        only=("zh", "en"), no_effect="prompts are made longer in English", instead="leave it out"),
    *(Published(flag, WAN22, values=values, instead=ANOTHER) for flag, values in (
        ("src_root_path", 1), ("refert_num", 1), ("replace_flag", 0), ("use_relighting_lora", 0),
        ("num_clip", 1), ("enable_tts", 0), ("tts_prompt_audio", 1), ("tts_prompt_text", 1),
        ("tts_text", 1), ("pose_video", 1), ("start_from_ref", 0), ("infer_frames", 1))),
    # SkyReels-V2, generate_video.py and generate_video_df.py
    Published("outdir", SKYREELS_V2, values=1, becomes="--output_dir=result/{}"),
    # HunyuanVideo-I2V, sample_image2video.py: the model
    Published("model", HUNYUAN, values=1, becomes=_hunyuan_network),
    Published("model_base", HUNYUAN, values=1, becomes="--model_id={}"),
    Published("i2v_mode", HUNYUAN, becomes=_hunyuan),
    Published("i2v_dit_weight", HUNYUAN, values=1, becomes=_weights),
    Published("dit_weight", HUNYUAN, values=1, no_effect="those are the text-to-video weights"),
    Published("load_key", HUNYUAN, values=1, no_effect="the weights in the file are found without it"),
    Published("model_resolution", HUNYUAN, values=1, no_effect="the size is that of --i2v_resolution"),
    *(Published(flag, HUNYUAN, values=values, no_effect="the model folder says it") for flag, values in (
        ("latent_channels", 1), ("rope_theta", 1), ("tokenizer", 1),
        ("text_encoder_2", 1), ("tokenizer_2", 1), ("text_states_dim", 1), ("text_states_dim_2", 1),
        ("text_len", 1), ("text_len_2", 1), ("prompt_template", 1), ("prompt_template_video", 1),
        ("hidden_state_skip_layer", 1), ("apply_final_norm", 0))),
    # Names of the published components; a file is this project's flag.
    Published("vae", HUNYUAN, values=1, only=("884-16c-hy",), no_effect="the model folder says it",
        becomes="--vae={}"),
    Published("text_encoder", HUNYUAN, values=1, only=("llm", "llm-i2v", "clipL"),
        no_effect="the model folder says it", becomes="--text_encoder={}"),
    # numbers
    Published("precision", HUNYUAN, values=1, becomes="--dtype={}"),
    Published("vae_precision", HUNYUAN, values=1, no_effect="the VAE's dtype is that of --vae_dtype"),
    Published("text_encoder_precision", HUNYUAN, values=1, no_effect=ENCODERS),
    Published("text_encoder_precision_2", HUNYUAN, values=1, no_effect=ENCODERS),
    Published("disable_autocast", HUNYUAN, no_effect="nothing is cast without being asked; see --dtype"),
    Published("use_fp8", HUNYUAN,
        no_effect="float8 weights are recognised by themselves; --low_vram makes float8 of others"),
    Published("reproduce", HUNYUAN, no_effect="the same seed gives the same video always"),
    # sampling
    Published("flow_reverse", HUNYUAN, no_effect="the released weights need it, so it is always on"),
    Published("flow_solver", HUNYUAN, values=1, only=("euler",), no_effect="it is the only solver",
        instead="leave it out"),
    Published("denoise_type", HUNYUAN, values=1, only=("flow",), no_effect="it is the only type",
        instead="leave it out"),
    Published("use_linear_quadratic_schedule", HUNYUAN, no_effect=IGNORED),
    Published("linear_schedule_end", HUNYUAN, values=1, no_effect=IGNORED),
    Published("seed_type", HUNYUAN, values=1, no_effect="--seed says all; without it one is drawn"),
    Published("video_size", HUNYUAN, values=2,
        no_effect="the size follows from the image and --i2v_resolution; --height and --width are exact"),
    Published("batch_size", HUNYUAN, values=1, only=("1",), no_effect="videos are made one after the other",
        instead="give several seeds: --seed 1,2, or a list of videos: --jobs FILE"),
    # LoRA
    Published("use_lora", HUNYUAN, needs="lora_path"),
    Published("lora_path", HUNYUAN, values=1, needs="use_lora", becomes=_lora),
    Published("lora_scale", HUNYUAN, values=1, needs="lora_path"),
    Published("lora_rank", HUNYUAN, values=1, no_effect="the file says it"),
    # several GPUs
    Published("ulysses_degree", HUNYUAN, values=1, becomes=_several_gpus("ulysses_degree")),
    Published("ring_degree", HUNYUAN, values=1, becomes=_several_gpus("ring_degree")),
    Published("xdit_adaptive_size", HUNYUAN, no_effect="tokens are padded, so that every size can be shared"),
    # memory, files
    Published("vae_tiling", HUNYUAN, values=1, becomes="--vae_tiling={}", alone="auto"),
    Published("save_path_suffix", HUNYUAN, values=1, becomes=_suffix, alone=""),
    Published("name_suffix", HUNYUAN, values=1, alone="", no_effect=IGNORED),
    Published("gradient_checkpoint", HUNYUAN, no_effect=TRAINING),
    Published("gradient_checkpoint_layers", HUNYUAN, values=1, no_effect=TRAINING),
)}
# fmt: on
# Names of tasks and scripts in the published repositories: the task, by whether there is an image, and the
# family whose model it is made with.
TASK_NAMES: dict[str, tuple[str, str, str | None]] = {
    "t2v-a14b": ("text_to_video", "text_to_video", "Wan2.2 A14B"),
    "i2v-a14b": ("image_to_video", "image_to_video", "Wan2.2 A14B"),
    "ti2v-5b": ("text_to_video", "image_to_video", "Wan2.2 5B"),
    "generate_video_df.py": ("diffusion_forcing", "diffusion_forcing", None),
    "sample_image2video.py": (HUNYUAN_TASK, HUNYUAN_TASK, None),
}
UNSUPPORTED_TASKS = {
    "s2v-14b": "talking_avatar makes a picture speak",
    "animate-14b": "reference_to_video makes a video of who is in a picture",
}


def spelled(word: str) -> str:
    """Return the name in a word that begins with dashes, in snake_case; '' for any other word."""
    return word[2:].partition("=")[0].replace("-", "_") if word.startswith("--") else ""


def is_flag(word: str) -> bool:
    """Return whether a word is a flag, this project's or a published one."""
    return word in ("-h", "-v") or spelled(word) in {*FLAG_NAMES, *ROWS, "help"}


def translate(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments without flags that only published commands have, and what to say about those.

    Raises:
        InputError: one that cannot be done here; says what to do instead.
    """
    words, given = _split(arguments)
    notes: list[str] = []
    for name in given:
        row = ROWS.get(name)
        if row is None:
            continue
        value = given[name]
        if row.needs and row.needs not in given:
            if row.becomes is not None and value:
                raise InputError(
                    f"--{name}", value, f"is not used without --{row.needs}", f"add --{row.needs}"
                )
            notes.append(f"--{name} has no effect without --{row.needs}")
        elif row.no_effect and (not row.only or value in row.only):
            notes.append(f"--{name} has no effect here: {row.no_effect}")
        elif isinstance(row.becomes, str):
            words.append(row.becomes.format(value))
        elif row.becomes is not None:
            words += row.becomes(given)
        elif row.instead:
            known = f" (only {' or '.join(row.only)})" if row.only else ""
            what = f"of {row.source}, cannot be done here{known}"
            raise InputError(f"--{name}", value or None, what, row.instead)
    return words, notes


def _split(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the words of this project, and all flags given by the name of their option or row.

    Raises:
        InputError: a published flag without its value.
    """
    words: list[str] = []
    given: dict[str, str] = {}
    rest = list(arguments)[::-1]
    while rest:
        word = rest.pop()
        name, (_, equals, value) = spelled(word), word.partition("=")
        row, option = ROWS.get(name), OPTIONS.get(FLAG_NAMES.get(name, ""))
        count = row.values if row is not None else 0 if option is None or option.parse is None else 1
        own = [value] if equals else []
        while len(own) < count and not equals and rest and not is_flag(rest[-1]):
            own.append(rest.pop())
        if row is None:
            words += [word] if equals else [word, *own]
        elif count and not own and row.alone is None:
            raise InputError(f"--{name}", None, "needs a value", f"--{name} VALUE, or leave it out")
        if row is not None or option is not None:
            said = " ".join(own) if own or row is None else row.alone or ""
            given[name if row is not None or option is None else option.name] = said
    return words, given
