"""Commands as the published repositories print them: their flags, tasks and scripts in this project's words.

Flags that this project has under the same name or an alias are not here: they stand in ``tasks/options.py``.
Every other flag of the four command lines has a row in ``configs/published_flags.yaml``: what it becomes, why
it has no effect here, or what to do instead.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from videogen import distributed
from videogen.errors import InputError
from videogen.tasks import config
from videogen.tasks.config import Config
from videogen.tasks.options import FLAG_NAMES, OPTIONS

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


BECOMES = {
    **{flag: _several_gpus(flag) for flag in ("ulysses_size", "ulysses_degree", "ring_degree")},
    **{"extend": _extend, "hunyuan": _hunyuan, "hunyuan_network": _hunyuan_network},
    **{"weights": _weights, "lora": _lora, "suffix": _suffix},
}
"""Names in the file for what no format string says."""


def _row(flag: str, source: str, facts: Config) -> Published:
    becomes, only = facts.get("becomes"), tuple(facts.get("only", ()))
    return Published(flag, source, **{**facts, "becomes": BECOMES.get(str(becomes), becomes), "only": only})


ROWS: dict[str, Published] = {
    flag: _row(flag, source, facts)
    for source, flags in config.read("published_flags").items()
    for flag, facts in flags.items()
}
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
    **dict.fromkeys(("t2v-14b", "t2v-1.3b"), "that is Wan2.1; t2v-A14B is Wan2.2's"),
    **dict.fromkeys(("i2v-14b", "flf2v-14b"), "that is Wan2.1; i2v-A14B is Wan2.2's"),
    **dict.fromkeys(("vace-14b", "vace-1.3b"), "that is Wan2.1; reference_to_video takes reference images"),
    "t2i-14b": "that is Wan2.1; text_to_video with --num_frames 1 --output NAME.png makes a picture",
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
