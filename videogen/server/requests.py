"""What a client may ask for: option values from a request, and files that it uploads.

No path, URL, model or weight file comes from a client: inputs are what it uploads, into the folder of its
job, and everything about this machine is what the server was started with.
"""

import base64
import binascii
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from videogen.errors import InputError, VideoGenError, brief, one_line
from videogen.media import output_formats
from videogen.media.download import Fetcher
from videogen.media.inputs import READERS, reader_of
from videogen.planning.local_devices import is_on_cpu
from videogen.planning.local_ram import total_ram
from videogen.planning.option_mapping import from_mapping, named
from videogen.planning.origins import Origin
from videogen.planning.plan import Outline
from videogen.planning.request import Item, make_plans
from videogen.results.formatting import format_bytes
from videogen.results.output_locks import OutputLocks
from videogen.results.output_paths import OverwritePolicy
from videogen.tasks.hints import hint
from videogen.tasks.option import Option
from videogen.tasks.option_types import prompts
from videogen.tasks.options import FLAG_NAMES, OPTIONS, merge
from videogen.tasks.table import ROWS, TASKS

REFERENCE = "input_reference"  # a file for whichever input takes its kind
LARGEST_UPLOAD = 100_000_000  # bytes of a file
VIDEO = "video.mp4"  # name of a result in the folder of its job
KINDS = {name: files.kind for row in ROWS for name, files in row.inputs.items() if not files.from_python}
"""Input option -> kind of its files."""
SOURCE = "request"  # what messages call it
# What comes before the last part of an absolute path, also of one that ``brief`` has cut. A folder's name may
# have spaces in it, but none at its ends.
FOLDERS = re.compile(r"""(?:…[^\s/]*|(?<![\w.:/~-]))/(?=[^\s/])(?:[^\s/:;,'"()]+(?: [^\s/:;,'"()]+)*/)*""")
# Suffixes that an upload keeps; readers go by content.
SUFFIXES = {f".{kind}" for kind in output_formats.FILES} | {
    *(".png", ".jpg", ".jpeg", ".webp", ".heic", ".bmp", ".tif", ".tiff", ".wav", ".mp3", ".flac", ".ogg"),
    *(".m4a", ".avi"),
}


class Upload(NamedTuple):
    """A file that comes with a request: the field, the client's name for it, and its content."""

    field: str
    name: str
    file: BinaryIO


def for_clients(option: Option) -> bool:
    """Return whether a client may set an option: it says what to make, and nothing about this machine."""
    of_server = (
        option.about_run,
        option.names_model,
        option.names_weights,
        option.reloads,
        option.writes_prompt,
        option.names_device,
    )
    return option.recorded and not any(of_server)


def explained(error: VideoGenError) -> tuple[str, str | None]:
    """Return what is wrong, as a client reads it, and the field of its request; no paths of this machine."""
    if not isinstance(error, InputError):
        return without_folders(one_line(error)), None
    name = error.flag.removeprefix("--")
    given = "" if error.given is None or "/" in str(error.given) else f" {brief(error.given)}"
    param, *_ = str((error.given or "") if name == SOURCE else name).partition(" ")
    return without_folders(f"{name}{given}: {error.verdict}".replace("--", "")), param or None


def without_folders(text: str) -> str:
    """Return a text with the last part of each absolute path instead of the path."""
    return FOLDERS.sub("", text)


def option_values(fields: Mapping[str, object]) -> dict[str, object]:
    """Return what a request says as it is kept: by option name, as plain data that ``from_mapping`` reads.

    Raises:
        InputError: an unknown field, one that only the server may set, or a value that cannot be.
    """
    kept: dict[str, object] = {}
    for spelling, given in fields.items():
        if given is None:
            continue
        if spelling == "size":
            width, height = OPTIONS["size"].value(given)
            kept |= {"width": width, "height": height}
        elif spelling == "seconds":
            kept["duration"] = given
        else:
            option = client_option(spelling)
            kept[option.name] = _plain(option, given)
    from_mapping(kept, SOURCE, one_video=True)
    return kept


def client_option(spelling: str) -> Option:
    """Return the option of a field.

    Raises:
        InputError: there is none, or none for clients.
    """
    if spelling.lstrip("-").replace("-", "_") not in FLAG_NAMES:
        advice = hint(spelling) or "see docs/server.md"
        raise InputError(SOURCE, spelling, "no such option", advice.replace("--", ""))
    option = named(spelling, SOURCE)
    if option.name in KINDS:
        raise InputError(
            SOURCE, spelling, "must be a file that is uploaded", "send it as multipart/form-data"
        )
    if not for_clients(option):
        raise InputError(SOURCE, spelling, "is decided by the server", "leave it out")
    return option


def _plain(option: Option, given: object) -> object:
    """Return a value as JSON has it; in a form, all values are texts."""
    if option.parse is prompts and not isinstance(given, list):  # a text is the name of a file
        raise InputError(SOURCE, option.name, "must be a list of prompts", f"send {option.name}[] for each")
    if option.parse is None and isinstance(given, str):
        return {"true": True, "false": False}.get(given.lower(), given)
    return given


def data_url(field_name: str, given: object) -> bytes:
    """Return the content of a data: URL.

    Raises:
        InputError: it is none; other URLs are not fetched.
    """
    head, _, body = str(given).partition(",")
    if not (head.startswith("data:") and head.endswith(";base64")):
        raise InputError(
            field_name, given, "must be a base64 data URL", "upload the file: URLs are not fetched"
        )
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error:
        raise InputError(field_name, None, "is not base64", "check the data URL") from None


def keep(upload: Upload, option: str, number: int, folder: Path) -> str:
    """Write an upload to the folder of its job, under a name of ours; returns that name.

    Raises:
        InputError: it is too large.
    """
    suffix = Path(upload.name).suffix.lower()
    path = folder / f"{option}_{number}{suffix if suffix in SUFFIXES else ''}"
    upload.file.seek(0)
    with path.open("wb") as target:
        shutil.copyfileobj(upload.file, target)
        if target.tell() > LARGEST_UPLOAD:
            what = f"is larger than {LARGEST_UPLOAD // 1_000_000} MB"
            raise InputError(upload.field, Path(upload.name).name, what, "send a smaller file")
    return path.name


def kind_of(upload: str, path: Path) -> str:
    """Return the kind of a file, 'image', 'video' or 'audio', as the readers of inputs see it.

    Raises:
        InputError: none of them can read it.
    """
    for kind in READERS:
        try:
            reader_of(kind)(REFERENCE, str(path), Fetcher(folder=path.parent))
        except InputError:
            continue
        return kind
    raise InputError(REFERENCE, upload, "is no picture, video or sound that can be read", "check the file")


def input_for(kind: str, task: str | None) -> str:
    """Return the input of a task that takes files of a kind; without a task, the usual one.

    Raises:
        InputError: the task takes none.
    """
    inputs = TASKS[task].inputs if task in TASKS else {f"input_{kind}": None}
    found = next((name for name in inputs if KINDS.get(name) == kind), None)
    if found is None:
        takes = ", ".join(f"{name} ({KINDS[name]})" for name in inputs if name in KINDS)
        what = f"is {'a' if kind == 'video' else 'an'} {kind}, and {task} takes {takes or 'no files'}"
        raise InputError(REFERENCE, None, what, "leave it out" if not takes else "send one of these")
    return found


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Decides what a request comes to.

    Args:
        defaults: option values that the server was started with.
        origins: where those come from.
        complete: adds the task where model and inputs leave only one.
        only_task: the task that all requests are for; None lets clients choose.
    """

    defaults: Mapping[str, object]
    complete: Callable[[Mapping[str, object]], dict[str, object]]
    origins: Mapping[str, Origin] = field(default_factory=dict)
    only_task: str | None = None

    def values(self, request: Mapping[str, object], inputs: Mapping[str, list[str]]) -> dict[str, Any]:
        """Return all option values of a request.

        Raises:
            InputError: a task that the server does not make, or values that cannot be.
        """
        own = from_mapping({**request, **dict(_as_given(inputs))}, SOURCE, one_video=True)
        values: dict[str, Any] = self.complete(merge(self.defaults, own))
        if self.only_task is not None and values.get("task_type") != self.only_task:
            what = f"this server makes {self.only_task}"
            raise InputError(SOURCE, f"task_type {values.get('task_type')}", what, "leave it out")
        if len(values.get("seed", ())) > 1:
            raise InputError(SOURCE, "seed", "a request is for one video", "send one request for each seed")
        return values

    def plan(
        self,
        request: Mapping[str, object],
        uploads: Mapping[str, list[str]],
        folder: Path,
        *,
        number: int = 1,
        locks: OutputLocks | None = None,
    ) -> Outline:
        """Return the plan of a job in its folder.

        Raises:
            InputError, CheckpointError: the first thing that will not work.
        """
        inputs = {name: [str(folder / file) for file in names] for name, names in uploads.items()}
        values = {**self.values(request, inputs), "output": str(folder / VIDEO)}
        origins = {**self.origins, **dict.fromkeys(request, Origin.ARGUMENT)}
        plans = make_plans(
            [Item(values=values, origins=origins)], OverwritePolicy(resume=True), folder, locks, first=number
        )
        _check_memory(plans[0])
        return plans[0]


def _check_memory(plan: Outline) -> None:
    """Refuse what the CPU's memory can never hold: its first step would take the server with it.

    A GPU whose memory does not suffice says so itself, at once.

    Raises:
        InputError: the video is too large.
    """
    if not is_on_cpu(plan.options.device):
        return
    needed, total = plan.ram_bytes(on_cpu=True), total_ram()
    if total is not None and needed > total:
        what = f"takes about {format_bytes(needed)} of RAM, and this server has {format_bytes(total)}"
        size = f"{plan.shape.width}x{plan.shape.height}, {plan.shape.file_frames} frames"
        raise InputError(SOURCE, size, what, "ask for a smaller or shorter video")


def _as_given(inputs: Mapping[str, list[str]]) -> Iterator[tuple[str, object]]:
    """Yield inputs as options have them: a list where there may be several, else the only one.

    Raises:
        InputError: several files where one is taken.
    """
    for name, names in inputs.items():
        several = any(row.inputs[name].most > 1 for row in ROWS if name in row.inputs)
        if len(names) > 1 and not several:
            raise InputError(SOURCE, name, "is one file", f"leave out {len(names) - 1}")
        yield name, names if several else names[0]
