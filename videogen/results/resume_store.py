"""Finished segments of an unfinished video, kept on disk so that an interrupted run can be resumed.

The folder ``<name>.parts`` beside the result holds, for every finished segment, a playable clip, its frames
(lossless) and its latents with the state that the next segment needs. ``state.json`` holds how many segments
are finished, size and SHA-256 of their files, and the hash of their plan. Every file is written atomically,
``state.json`` last, and removed first.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from videogen.errors import InputError
from videogen.files import Record, save_tensors, write_json, writing
from videogen.results import sidecar
from videogen.results.digest import digest, digest_if_readable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

logger = logging.getLogger(__name__)

CHUNK = 16  # frames read at a time
STATE = "state."  # prefix of the tensors that the next segment needs
STATE_FILE = "state.json"
NEEDED = ("npy", "safetensors")  # resuming does not read the mp4
STORED_FILE = re.compile(r"\d{3,}\.(mp4|npy|safetensors)|state\.json|\..*\.part(\.\w+)?")


@dataclass(frozen=True, slots=True)
class ResumeStore:
    """The stored segments of one result, made by one plan."""

    folder: Path
    plan_hash: str | None
    request: Mapping[str, object]

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Refuse to lose finished segments, or to continue those of another plan.

        Raises:
            InputError: there are finished segments, and neither flag says what to do with them; they cannot
                be continued; or other files are in the way.
        """
        if self.folder.is_symlink() or (self.folder.exists() and not self.folder.is_dir()):
            raise InputError("--output", self.folder, "is in the way", "move it")
        files = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()
        if others := sorted(name for name in files if not STORED_FILE.fullmatch(name)):
            raise InputError("--output", self.folder, f"has other files in it ({others[0]})", "move them")
        state = self._read_state()
        if overwrite or (state is None and STATE_FILE not in files):
            return
        if state is None:
            raise InputError("--output", self.folder, "its state.json is damaged", "--overwrite begins again")
        if not resume:
            what = f"has {state['finished']} finished segments of an unfinished video"
            fix = "--resume continues it, --overwrite begins again"
            raise InputError("--output", self.folder, what, fix)
        if self.plan_hash is not None and state["plan_hash"] != self.plan_hash:
            what = f"was made with {sidecar.differences(state['request'], self.request)}"
            raise InputError("--resume", self.folder, what, "repeat those, or --overwrite begins again")
        for file in (self.file(index, kind) for index in range(state["finished"]) for kind in NEEDED):
            if file.name not in files:
                raise InputError("--resume", self.folder, f"lacks {file.name}", "--overwrite begins again")

    def num_finished(self) -> int:
        """Return the number of finished segments of this plan."""
        state = self._read_state()
        return state["finished"] if state is not None and state["plan_hash"] == self.plan_hash else 0

    def num_intact(self) -> int:
        """Return the number of finished segments before the first damaged one, of which a warning tells."""
        known = (self._read_state() or {}).get("files", {})
        for index in range(self.num_finished()):
            for file in (self.file(index, kind) for kind in NEEDED):
                if known.get(file.name) != digest_if_readable(file):
                    logger.warning("%s is damaged; it and what follows is made again", file)
                    return index
        return self.num_finished()

    def stored_request(self) -> Mapping[str, object]:
        """Return the request that the finished segments were made with; empty if there are none."""
        return (self._read_state() or {}).get("request", {}) if self.num_finished() else {}

    def stored_settings(self) -> Mapping[str, object]:
        """Return what 'auto' options resolved to for the finished segments."""
        return (self._read_state() or {}).get("effective", {})

    def frames(self, index: int) -> "Iterator[np.ndarray]":
        """Yield the frames of a finished segment, uint8 [f, H, W, 3] at a time."""
        import numpy as np  # noqa: PLC0415 - this module is imported at start-up

        stored = np.load(self.file(index, "npy"), mmap_mode="r", allow_pickle=False)
        for start in range(0, len(stored), CHUNK):
            yield np.array(stored[start : start + CHUNK])

    def latents(self, index: int) -> "Tensor":
        """Return the latents [1, C, F, h, w] of a finished segment."""
        return self._tensors(index, "latents")["latents"]

    def state(self, index: int) -> "dict[str, Tensor]":
        """Return the state after a finished segment; what all segments need is in that of the first."""
        return {name.removeprefix(STATE): t for name, t in self._tensors(index, STATE).items()}

    def _tensors(self, index: int, prefix: str) -> "dict[str, Tensor]":
        from safetensors import safe_open  # noqa: PLC0415 - with torch

        with safe_open(self.file(index, "safetensors"), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118

    def file(self, index: int, suffix: str) -> Path:
        """Return the path of one of a segment's files."""
        return self.folder / f"{index + 1:03d}.{suffix}"

    def mark_finished(self, index: int, settings: Mapping[str, object]) -> None:
        """Write state.json: the segments up to ``index`` are finished."""
        earlier = (self._read_state() or {}).get("files", {}) if index else {}
        new = {file.name: digest(file) for file in (self.file(index, kind) for kind in NEEDED)}
        content = {
            "schema": sidecar.SCHEMA,
            "plan_hash": self.plan_hash,
            "seed": self.request["seed"],
            "request": self.request,
            "effective": dict(settings),
            "finished": index + 1,
            "files": earlier | new,
        }
        with writing(self.folder):
            write_json(self.folder / STATE_FILE, content)

    def remove(self) -> None:
        """Delete the stored files, and the folder if nothing else is in it."""
        if not self.folder.is_dir() or self.folder.is_symlink():
            return
        (self.folder / STATE_FILE).unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if STORED_FILE.fullmatch(path.name):
                path.unlink()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def remove_rest(self) -> None:
        """Delete what is left after a result was finished, but no segments of another plan."""
        if self.num_finished() or not (self.folder / STATE_FILE).exists():
            self.remove()

    def _read_state(self) -> Record | None:
        """Return the content of state.json; None if there is none, or it is damaged."""
        state = sidecar.read_record(self.folder / STATE_FILE) or {}
        kinds = {"finished": int, "plan_hash": str, "seed": int, "request": dict}
        optional = {"files": dict, "effective": dict}
        sound = all(isinstance(state.get(name), kind) for name, kind in kinds.items()) and all(
            isinstance(state.get(name, {}), kind) for name, kind in optional.items()
        )
        return state if sound and state["finished"] > 0 else None


class SegmentWriter:
    """Writer of one segment to a store; nothing of it is kept before ``finish``."""

    def __init__(
        self, store: ResumeStore, index: int, size: tuple[int, int], fps: int, num_frames: int
    ) -> None:
        self.store, self.index = store, index
        self.options = {"size": size, "fps": fps, "num_frames": num_frames}
        self.stack = ExitStack()

    def __enter__(self) -> "SegmentWriter":
        from videogen.media.video_writer import open_writer  # noqa: PLC0415 - numpy

        self.writers = [
            self.stack.enter_context(
                open_writer(self.store.file(self.index, kind), kind, **self.options)  # type: ignore[arg-type]
            )
            for kind in (("mp4", "npy") if self.options["num_frames"] else ("npy",))  # an mp4 needs frames
        ]
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def write(self, frames: "np.ndarray") -> None:
        """Write frames, uint8 [f, H, W, 3]."""
        for writer in self.writers:
            writer.write(frames)

    def finish(
        self, latents: "Tensor", state: "Mapping[str, Tensor]", settings: Mapping[str, object]
    ) -> None:
        """Publish the segment's files, and then mark it as finished."""
        tensors = {"latents": latents, **{STATE + name: tensor for name, tensor in state.items()}}
        file = self.store.file(self.index, "safetensors")
        with writing(file):
            save_tensors(file, tensors)
        for writer in self.writers:
            writer.finish()
            writer.publish()
        self.store.mark_finished(self.index, settings)
