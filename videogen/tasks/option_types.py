"""Parsers of flag values: text in, value out, or a verdict that says what is allowed and the nearest fix."""

import errno
import math
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from videogen.errors import nearest
from videogen.files import TextError, read_text
from videogen.media.download import display_name
from videogen.tasks.geometry import SIZE_UNIT
from videogen.tasks.kernels import DTYPES

MAX_SEED = 2**63 - 1
DRAWN_SEEDS = 2**31  # seeds are drawn below it, so that every other program takes them too
LONGEST_NAME, LONGEST_PATH = 255, 4000  # bytes that file systems allow; temporary names make a path longer


class Reject(Exception):  # noqa: N818 - a verdict; the caller knows the flag and makes an InputError of it
    """A value that is refused: what is allowed, and the nearest fix."""

    def __init__(self, allowed: str, fix: str) -> None:
        super().__init__(allowed)
        self.allowed, self.fix = allowed, fix


def text(value: str) -> str:
    """Parse any text, also an empty one."""
    return value


def word(value: str) -> str:
    """Parse a text that is not empty, and could be a path."""
    if not value.strip():
        raise Reject("must not be empty", "give a value or leave the flag out")
    if any(ord(character) < 32 for character in value):
        raise Reject("must not hold line breaks or control characters", "leave them out")
    return value


def device(value: str) -> str:
    """Parse the name of a device."""
    kind, _, number = word(value).partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (number and not (kind == "cuda" and number.isdigit())):
        raise Reject("must be auto, cpu, cuda, cuda:N or mps", "try auto")
    return value


def local_path(value: str) -> Path:
    """Return the path that a text names, which need not exist; every path that is given comes through here.

    Raises:
        Reject: no file system can hold it, it is in the home of nobody, or its links lead in a circle.
    """
    try:
        path = Path(value).expanduser()
    except RuntimeError:
        raise Reject(f"there is no user {Path(value).parts[0]}", "give the whole path") from None
    if len(os.fsencode(path)) > LONGEST_PATH or any(
        len(os.fsencode(name)) > LONGEST_NAME for name in path.parts
    ):
        raise Reject(f"names in a path may have {LONGEST_NAME} bytes", "choose a shorter one")
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Reject("its symbolic links lead in a circle", "give the file itself") from None
    except ValueError:
        raise Reject("holds a character that no name may have", "leave it out") from None
    return path


def path(value: str) -> str:
    """Parse a path, a URL or the name of a model."""
    if "://" not in word(value):
        local_path(value)
    return value


def file_path(value: str) -> str:
    """Parse the path of a file, or of a folder that is one result."""
    if local_path(word(value)).name in ("", ".."):
        raise Reject("names no file", f"for example {Path(value) / 'video.mp4'}")
    return value


def folder(value: str) -> str:
    """Parse the path of a folder, which need not exist yet."""
    if local_path(word(value)).exists() and not Path(value).is_dir():
        raise Reject("is not a folder", "give a folder, or a new name")
    return value


def upper(value: str) -> str:
    """Parse a word, in capitals (480p is 480P)."""
    return word(value).upper()


def whole(least: int, most: int | None = None, *, example: int | None = None) -> Callable[[str], int]:
    """Return a parser of whole numbers in a range; ``example`` is offered where ``least`` often fails."""
    allowed = f"must be a whole number from {least}" + (" on" if most is None else f" to {most}")

    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise Reject(allowed, f"nearest {_rounded(value, least, most)}") from None
        if number < least and example is not None:
            raise Reject(allowed, f"for example {example}")
        if number < least or (most is not None and number > most):
            raise Reject(allowed, f"nearest {least if number < least else most}")
        return number

    return parse


def _rounded(value: str, least: int, most: int | None) -> int:
    """Return the whole number in range that is nearest to what looks like a number, else the smallest."""
    try:
        number = max(least, round(float(value)))
        return number if most is None else min(number, most)
    except (ValueError, OverflowError):
        return least


def real(
    least: float = 0.0, most: float = math.inf, *, above: bool = False, example: float = 1.0
) -> Callable[[str], float]:
    """Return a parser of finite numbers in a range; ``above`` leaves the lower end out."""
    start = f"number above {least:g}" if above else f"number, {least:g} or more"
    allowed = f"must be a {start}" + ("" if most == math.inf else f" to {most:g}")

    def parse(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (least <= number <= most and math.isfinite(number)) or (above and number == least):
            raise Reject(allowed, f"nearest {most:g}" if number > most else f"for example {example:g}")
        return number

    return parse


def guidance(value: str) -> float | tuple[float, float]:
    """Parse a scale, or two: for low and for high noise."""
    scales = [real(0, 1000)(part) for part in value.split(",")]
    if len(scales) > 2:
        raise Reject("must be one number, or LOW,HIGH", f"nearest {scales[0]:g},{scales[1]:g}")
    return scales[0] if len(scales) == 1 else (scales[0], scales[1])


def pixels(value: str) -> int:
    """Parse a side in pixels, a multiple of 16."""
    number = whole(1)(value)
    if number % SIZE_UNIT:
        low = number // SIZE_UNIT * SIZE_UNIT
        fix = f"nearest {low} or {low + SIZE_UNIT}" if low else f"nearest {SIZE_UNIT}"
        raise Reject(f"must be a multiple of {SIZE_UNIT}", fix)
    return number


def size(value: str) -> tuple[int, int]:
    """Parse W*H (or WxH) to (width, height) in pixels."""
    parts = value.lower().replace("x", "*").split("*")
    if len(parts) != 2:
        raise Reject("must be WIDTH*HEIGHT", "for example 1280*720")
    return whole(1)(parts[0]), whole(1)(parts[1])


def seeds(value: str) -> tuple[int, ...]:
    """Parse seeds; none of them for 'random', which draws one."""
    if value == "random":
        return ()
    try:
        numbers = tuple(int(part) for part in value.split(","))
    except ValueError:
        raise Reject("must be whole numbers, separated by commas", "for example 1,2,3, or random") from None
    if any(not 0 <= number <= MAX_SEED for number in numbers):
        raise Reject(f"must lie between 0 and {MAX_SEED}", "random draws one")
    if len(set(numbers)) < len(numbers):
        raise Reject("must name each seed once", "remove the repeated one")
    return numbers


def paths(value: str) -> tuple[str, ...]:
    """Parse comma-separated paths or URLs; a path that exists as it stands may hold a comma."""
    try:
        if local_path(value).is_file():
            return (value,)
    except Reject:
        if "," not in value and "://" not in value:
            raise
    return tuple(path(part.strip()) for part in value.split(",") if part.strip())


def prompts(value: str) -> tuple[str, ...]:
    """Read a file of prompts, one per line; a blank line repeats the one before."""
    try:
        lines = read_text(local_path(value)).rstrip("\n").split("\n")
    except TextError as error:
        raise Reject(str(error), error.fix) from None
    if not any(line.strip() for line in lines):
        raise Reject("is empty", "write one prompt per line")
    found: list[str] = []
    for line in lines:
        if not line.strip() and not found:
            raise Reject("begins with a blank line", "the first line must be a prompt")
        found.append(" ".join(line.split()) or found[-1])
    return tuple(found)


def rate(value: str) -> float:
    """Parse frames a second, or 0 for 'auto': the file's own."""
    return 0.0 if value == "auto" else real(above=True, example=30)(value)


def recorded_rate(value: float) -> float | str:
    """Return a rate as ``rate`` reads it."""
    return value or "auto"


class Lora(NamedTuple):
    """LoRA weights: file or folder, strength, and the expert they are for ('high', 'low' or None).

    ``source`` is where the file comes from, if not from this machine: a URL, or OWNER/REPOSITORY:FILE. As
    long as it was not fetched, ``path`` is only its name. ``given``: the path as it was written.
    """

    path: Path
    scale: float
    expert: str | None
    source: str | None = None
    given: str = ""

    @property
    def name(self) -> str:
        """Return what messages call it."""
        return display_name(self.source) if self.source else self.given or str(self.path)

    @property
    def recorded(self) -> str:
        """Return it as ``lora`` reads it, without a private path."""
        name = display_name(self.source or str(self.path))
        return ":".join([name, str(self.scale), *([self.expert] if self.expert else [])])


LORA_FORM = "must be PATH, URL or OWNER/REPOSITORY:FILE, then [:scale[:high|low]]"
HUB_FILE = re.compile(r"[\w.-]+/[\w.-]+:[^:]+\.(?:safetensors|pt|pth|bin|ckpt)")


def lora(value: str) -> Lora:
    """Parse PATH[:scale[:high|low]], where a URL or OWNER/REPOSITORY:FILE may stand for the path."""
    if "://" not in value and local_path(value).exists():
        return Lora(local_path(value), 1.0, None, given=value)
    file, expert, strength = value, None, 1.0
    head, _, tail = file.rpartition(":")
    if head and tail in ("high", "low"):
        file, expert = head, tail
    head, _, tail = file.rpartition(":")
    if head and not HUB_FILE.fullmatch(file):
        try:
            file, strength = head, float(tail)
        except ValueError:
            if "://" not in file:  # a URL without a scale behind it
                raise Reject(LORA_FORM, f"'{tail}' is not a number") from None
    if not math.isfinite(strength):
        raise Reject(LORA_FORM, "the scale must be a finite number")
    if "://" in file and not file.lower().startswith(("https://", "http://")):
        raise Reject("URLs must be http or https", "download it and give the path")
    if "://" in file or (HUB_FILE.fullmatch(file) and not local_path(file).exists()):
        return Lora(Path(file), strength, expert, file)
    return Lora(local_path(file), strength, expert, given=file)


class WeightFile(NamedTuple):
    """A file in place of a component, its expert ('high', 'low' or None), and its path as it was written."""

    path: Path
    expert: str | None = None
    given: str = ""

    @property
    def recorded(self) -> str:
        """Return it as it is given, without a private path."""
        return ":".join([self.path.name, *([self.expert] if self.expert else [])])


def weight_file(value: str) -> WeightFile:
    """Parse FILE."""
    return WeightFile(local_path(word(value)), given=value)


def expert_file(value: str) -> WeightFile:
    """Parse FILE[:high|low]."""
    head, _, tail = value.rpartition(":")
    if head and tail in ("high", "low") and not local_path(value).exists():
        return WeightFile(local_path(word(head)), tail, head)
    return weight_file(value)


def recorded_file(file: WeightFile) -> str:
    """Return a weight file as ``weight_file`` reads it."""
    return file.recorded


def recorded_files(files: Iterable[Lora | WeightFile]) -> list[str]:
    """Return files as ``lora`` or ``expert_file`` reads them."""
    return [file.recorded for file in files]


def one_of(*choices: str, **synonyms: str) -> Callable[[str], str]:
    """Return a parser of a fixed set of words."""

    def parse(value: str) -> str:
        if value in choices or value in synonyms:
            return synonyms.get(value, value)
        close = nearest(value, choices)
        fix = f"nearest {close}" if close else f"for example {choices[0]}"
        raise Reject(f"must be one of {', '.join(choices)}", fix)

    parse.choices = choices  # type: ignore[attr-defined]  # read by the help text
    return parse


def dtype_of(*names: str) -> Callable[[str], str]:
    """Return a parser of dtypes by their names, long or short."""
    return one_of(*names, **{DTYPES[name].short: name for name in names})


def split(value: object) -> str:
    """Return a YAML or JSON list as it would be typed."""
    return ",".join(str(part) for part in value) if isinstance(value, list | tuple) else str(value)
