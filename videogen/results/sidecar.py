"""Metadata of a result: the JSON beside it (sidecar), a short form in the MP4's comment, and reading both.

Neither contains absolute paths, access tokens or other private data.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from videogen.errors import InputError
from videogen.files import Record, TextError, parse_json, read_text
from videogen.media.output_formats import WITH_SOUND

SCHEMA = 1
COMMENT_LIMIT = 100_000  # bytes; one program argument may have 128 KiB
LOCAL_MODEL = "local:"
ANOTHER = "give the .json beside a result, or its .mp4"


def comment(content: Record) -> str:
    """Return the short form of a sidecar for the MP4's comment: what is needed to repeat the result."""
    short = {
        key: content[key] for key in ("schema", "videogen", "request", "model", "plan_hash") if key in content
    }
    text = json.dumps(short, ensure_ascii=False, separators=(",", ":"))
    if len(text.encode()) > COMMENT_LIMIT:  # a prompt of novel length stays in the sidecar only
        short["request"] = {k: v for k, v in short["request"].items() if "prompt" not in k}
        text = json.dumps(short, ensure_ascii=False, separators=(",", ":"))
    return text


def beside(path: Path) -> Path:
    """Return the sidecar of a result without metadata in it (a folder, .gif, .npy, .png); else the path."""
    if path.is_dir():
        return path.with_name(f"{path.name}.json")
    return path.with_suffix(".json") if path.suffix.lower() in (".gif", ".npy", ".png") else path


def read_record(path: Path) -> Record | None:
    """Read the metadata of a sidecar, a state.json or an MP4; None if there is none of videogen's."""
    try:
        content = _parse(_text("", str(path), path))
    except InputError:
        return None
    return content if content is not None and content.get("schema") == SCHEMA else None


def differences(was: Mapping[str, object], now: Mapping[str, object]) -> str:
    """Describe the difference between two requests."""
    now = json.loads(json.dumps(now))
    names = sorted(name for name in {*was, *now} if was.get(name) != now.get(name))
    return f"another {', '.join(names) or 'model or input'}"


def read_request(flag: str, file: str) -> Record:
    """Read the request in a sidecar or an MP4, as option name -> plain value.

    Raises:
        InputError: no such file, or no metadata of ours in it.
    """
    path = beside(Path(file).expanduser())
    if not path.is_file():
        raise InputError(flag, file, "no such file", "give a .json or .mp4 made by videogen")
    content = _parse(_text(flag, file, path))
    request = None if content is None else content.get("request")
    if content is None or not isinstance(request, dict) or not request:
        raise InputError(flag, file, "holds no videogen metadata", ANOTHER)
    if content.get("schema") != SCHEMA:
        what = f"has metadata of schema {content.get('schema')}"
        raise InputError(flag, file, what, f"this version reads {SCHEMA}")
    return request


def changed_inputs(file: str, inputs: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return the names of input files whose content differs from what the earlier run recorded."""
    path = beside(Path(file).expanduser())
    record = read_record(path.with_suffix(".json") if _is_video(path) else path) or {}
    try:
        earlier = {item["name"]: item["sha256"] for items in record["inputs"].values() for item in items}
    except (KeyError, TypeError, AttributeError):  # not as this version writes it
        earlier = {}
    now = [item for items in inputs.values() for item in items]
    return [item.name for item in now if earlier.get(item.name, item.sha256) != item.sha256]


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in WITH_SOUND


def _text(flag: str, file: str, path: Path) -> str:
    if not _is_video(path):
        try:
            return read_text(path)
        except TextError:
            raise InputError(flag, file, "is not a text file", ANOTHER) from None
    from videogen.media.probe import read_comment  # noqa: PLC0415 - PyAV

    try:
        return read_comment(path) or ""
    except InputError:
        raise InputError(flag, file, "is not a readable video", ANOTHER) from None


def _parse(text: str) -> Record | None:
    """Return a JSON object; None if the text is none."""
    try:
        content = parse_json(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
