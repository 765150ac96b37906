"""--show: what made a result, and the command that makes it again."""

import shlex
from collections.abc import Iterator, Mapping

from videogen.files import Record
from videogen.results import sidecar
from videogen.results.formatting import format_bytes, format_measured
from videogen.results.run_summary import PLACES
from videogen.review.found import Found, beside
from videogen.review.settings import changed_options, shown
from videogen.tasks.table import TASKS

LABEL = 11  # characters of the first column


def again(found: Found) -> str:
    """Return the command that makes a result again, under another name."""
    source = found.path if found.embedded or found.path.exists() else found.sidecar
    suffix = "" if source.is_dir() else ".mp4" if source.suffix == ".json" else source.suffix
    words = ["python", "generate_video.py", "--from_metadata", str(source)]
    if str(found.request.get("model_id", "")).startswith(sidecar.LOCAL_MODEL):
        words += ["--model_id", "FOLDER"]
    words += ["--output", str(beside(source, f"_again{suffix}"))]
    return shlex.join(words)


def to_json(found: Found) -> Record:
    """Return all that is known of a result, as plain JSON."""
    changed = {name: {"value": value, "default": usual} for name, usual, value in changed_options(found)}
    return {
        "path": found.path.as_posix(),
        "record": "embedded" if found.embedded else found.sidecar.as_posix(),
        **found.record,
        "changed_options": changed,
        "command": again(found),
    }


def lines(found: Found) -> list[str]:
    """Return what is known of a result, as it is printed."""
    return [f"{label:<{LABEL}}{' '.join(text.split())}" for label, text in _facts(found) if text]


def time_and_memory(found: Found) -> tuple[str, str]:
    """Return how long a result took, and memory at its peak, in words; "" where it is not recorded."""
    total, step = found.number("seconds", "total"), found.seconds_per_step
    took = [format_measured(total)] if total is not None else []
    took += [f"{step:.3g} s/step"] if step is not None else []
    peaks = {words: found.number("peak_memory", place) for place, words in PLACES.items()}
    return ", ".join(took), ", ".join(
        f"{format_bytes(size)} {words}" for words, size in peaks.items() if size
    )


def _facts(found: Found) -> Iterator[tuple[str, str]]:
    """Yield (label, text)."""
    record, request = found.record, found.request
    exists = found.path.exists() and found.path != found.sidecar
    yield "file", str(found.path) if exists else f"{found.sidecar} (its video is gone)"
    if found.embedded:
        yield "record", "the short one inside the file; its .json is gone"
    yield "prompt", found.prompt
    yield "task", str(request.get("task_type", ""))
    yield "model", _model(found)
    yield "seed", str(found.seed)
    yield "size", found.size
    for name, usual, value in changed_options(found):
        is_input = name in getattr(TASKS.get(str(request.get("task_type"))), "inputs", ())
        default = "" if usual is None or is_input else f" (default {shown(usual)})"
        yield "option", f"--{name} {shown(value)}{default}"
    took, memory = time_and_memory(found)
    yield "time", took
    yield "memory", memory
    device = f" on {record['device']}" if isinstance(record.get("device"), str) else ""
    yield "made", f"{found.created:%Y-%m-%d %H:%M:%S}{device}"
    yield "versions", _versions(record)
    yield "again", again(found)


def _model(found: Found) -> str:
    model, name = found.record.get("model"), str(found.request.get("model_id", ""))
    revision = model.get("revision") if isinstance(model, Mapping) else None
    return f"{name}, revision {revision}" if revision else name


def _versions(record: Record) -> str:
    versions = record.get("versions")
    own = f"videogen {record.get('videogen', '')}"
    others = versions.items() if isinstance(versions, Mapping) else ()
    return ", ".join([own, *(f"{name} {version}" for name, version in others)])
