"""Publishing: the files of a result get their names so that a kill at any moment leaves what is understood.

All files are complete on the disk under temporary names before the first is renamed. Then:

1. The record is written under a temporary name. It holds size and digest of the other files.
2. The video is renamed; then latents and last frame, if there are any.
3. The record is renamed.

A video counts as finished if its record is there, names this plan, and has the digests of the files
(``is_whole``). A kill before the end of 1 changes nothing: an earlier result is still whole. After it the
result is complete but for names: the next run with ``--resume`` or ``--overwrite`` does 2 and 3
(``finish_interrupted``); an earlier record, which may still be there, has another digest than the new video.
After 3 only the stored segments are left to remove.
"""

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

from videogen import files
from videogen.files import Record
from videogen.results import sidecar
from videogen.results.digest import digest, digest_if_readable
from videogen.results.output_paths import OutputPaths, earlier_record

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def publish(outputs: OutputPaths, temporaries: Mapping[str, Path], record: Record) -> OutputPaths:
    """Give the complete files their names; add the video's name and all digests to ``record``.

    Args:
        temporaries: where the files are, by their role in ``outputs.files``.

    Returns:
        the paths, with another number if the name was taken meanwhile and may not be replaced.
    """
    for temporary in temporaries.values():
        files.flush_to_disk(temporary)
    record["files"] = {role: digest(temporary) for role, temporary in temporaries.items()}
    rename, video = files.replace if outputs.may_replace else files.rename_to_new, temporaries["video"]
    for path in files.numbered(outputs.path):
        outputs = replace(outputs, path=path)
        record["output"] = path.name
        with (
            suppress(FileExistsError),
            _without_interrupts(),
            files.temporary_sibling(outputs.sidecar, kept_if=lambda: not video.exists()) as pending,
        ):
            pending.write_text(files.to_json(record), encoding="utf-8")
            files.flush_to_disk(pending)
            rename(video, path)
            for role in temporaries.keys() - {"video"}:
                files.replace(temporaries[role], outputs.files[role])
            pending.replace(outputs.sidecar)
            return outputs
    raise AssertionError("unreachable")


def is_whole(record: Record, outputs: OutputPaths) -> bool:
    """Return whether the files of a result are those that its record describes.

    Records of earlier versions have no digests, and are believed.
    """
    known = record.get("files")
    if not isinstance(known, Mapping):
        return known is None
    return all(known.get(role) == digest_if_readable(path) for role, path in outputs.files.items())


def finish_interrupted(outputs: OutputPaths) -> None:
    """Do what a killed run left undone of steps 2 and 3; names may have ``*`` in the place of the seed."""
    for pending in files.stale_temporaries(outputs.sidecar.parent, outputs.sidecar.name):
        record = sidecar.read_record(pending) or {}
        name, known = record.get("output"), record.get("files")
        if not isinstance(name, str) or not isinstance(known, Mapping) or Path(name).name != name:
            continue  # killed in step 1
        found = replace(outputs, path=pending.with_name(name))
        is_there = digest_if_readable(found.path) == known.get("video")
        if found.path.exists() and not is_there and earlier_record(found) is None:
            continue  # somebody else's
        for role, path in found.files.items():
            _finish(path.with_name(path.name.replace("*", str(record.get("seed")))), known.get(role))
        if digest_if_readable(found.path) == known.get("video"):
            pending.replace(found.sidecar)


def _finish(path: Path, wanted: object) -> None:
    """Rename the temporary of a killed run that has this digest, and remove others."""
    for left in files.stale_temporaries(path.parent, path.name):
        if digest_if_readable(left) == wanted != digest_if_readable(path):
            files.replace(left, path)
        files.remove(left)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let signals that end the run wait until the block has ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    found = {number: signal.getsignal(number) for number in SIGNALS}
    handlers = {number: handler for number, handler in found.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda *signalled: came.append(signalled))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number, frame in came:
            handlers[number](number, frame)
