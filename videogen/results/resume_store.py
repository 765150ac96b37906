"""Finished rolls of an unfinished video, kept on disk so that no more than the roll at work is ever lost.

A folder ``<name>.parts`` beside the result holds, for every finished roll, a clip to look at, its frames
(lossless) and its latents with what the next roll needs; ``state.json`` says how many there are, and of
which plan. Every file is renamed into place when it is whole, ``state.json`` last.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videogen.errors import InputError
from videogen.files import write_json
from videogen.results import sidecar

CHUNK = 16  # frames read at a time
STATE = "state."  # before the names of what the next roll needs
STATE_FILE = "state.json"
NEEDED = ("npy", "safetensors")  # the mp4 is for looking at
OURS = re.compile(r"\d{3,}\.(mp4|npy|safetensors)|state\.json|\..*\.part(\.\w+)?")


@dataclass(frozen=True, slots=True)
class Parts:
    """The rolls kept for one result, of one plan."""

    folder: Path
    plan_hash: str | None
    request: Mapping[str, Any]

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Refuse to lose finished rolls, or to continue those of another plan.

        Raises:
            InputError: there are some, and what is to become of them was not said.
        """
        if self.folder.is_symlink() or (self.folder.exists() and not self.folder.is_dir()):
            raise InputError("--output", self.folder, "is in the way", "move it")
        files = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()
        if others := sorted(name for name in files if not OURS.fullmatch(name)):
            raise InputError("--output", self.folder, f"has other files in it ({others[0]})", "move them")
        state = read_state(self.folder)
        if overwrite or (state is None and STATE_FILE not in files):
            return
        if state is None:
            raise InputError("--output", self.folder, "its state.json is damaged", "--overwrite begins again")
        if not resume:
            what = f"has {state['finished']} finished rolls of an unfinished video"
            fix = "--resume continues it, --overwrite begins again"
            raise InputError("--output", self.folder, what, fix)
        if self.plan_hash is not None and state["plan_hash"] != self.plan_hash:
            what = f"was made with {sidecar.differences(state['request'], self.request)}"
            raise InputError("--resume", self.folder, what, "repeat those, or --overwrite begins again")
        for file in (self._file(index, kind) for index in range(state["finished"]) for kind in NEEDED):
            if file.name not in files:
                raise InputError("--resume", self.folder, f"lacks {file.name}", "--overwrite begins again")
            if not _is_whole(file):
                what = f"{file.name} in it is damaged"
                raise InputError("--resume", self.folder, what, "--overwrite begins again")

    def finished(self) -> int:
        """How many rolls are there."""
        state = read_state(self.folder)
        return state["finished"] if state is not None and state["plan_hash"] == self.plan_hash else 0

    def request_kept(self) -> Mapping[str, Any]:
        """The request that the finished rolls were made with; empty where there are none."""
        return (read_state(self.folder) or {}).get("request", {}) if self.finished() else {}

    def frames(self, index: int) -> Iterator[Any]:
        """Frames of a finished roll, uint8 [f, H, W, 3] at a time."""
        import numpy as np  # noqa: PLC0415 - this module is imported at start-up

        stored = np.load(self._file(index, "npy"), mmap_mode="r", allow_pickle=False)
        for start in range(0, len(stored), CHUNK):
            yield np.array(stored[start : start + CHUNK])

    def latents(self, index: int) -> Any:
        """Latents [1, C, F, h, w] of a finished roll."""
        return self._tensors(index, "latents")["latents"]

    def state(self, index: int) -> dict[str, Any]:
        """What the roll after a finished one needs; what all need is in that of the first."""
        return {name.removeprefix(STATE): t for name, t in self._tensors(index, STATE).items()}

    def _tensors(self, index: int, prefix: str) -> dict[str, Any]:
        from safetensors import safe_open  # noqa: PLC0415 - with torch

        with safe_open(self._file(index, "safetensors"), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118

    def _file(self, index: int, suffix: str) -> Path:
        return self.folder / f"{index + 1:03d}.{suffix}"

    def record(self, index: int, size: tuple[int, int], fps: int, num_frames: int) -> "Recording":
        """A place for the roll that is being made."""
        return Recording(self, index, size, fps, num_frames)

    def effective(self) -> dict[str, Any]:
        """What 'auto' options came to when the finished rolls were made."""
        return (read_state(self.folder) or {}).get("effective", {})

    def commit(self, index: int, effective: Mapping[str, Any]) -> None:
        """Count a roll as finished."""
        content = {
            "schema": sidecar.SCHEMA,
            "plan_hash": self.plan_hash,
            "seed": self.request["seed"],
            "request": self.request,
            "effective": dict(effective),
            "finished": index + 1,
        }
        write_json(self.folder / STATE_FILE, content)

    def remove(self) -> None:
        """Delete what is ours, and the folder if nothing else is in it."""
        if not self.folder.is_dir() or self.folder.is_symlink():
            return
        for path in self.folder.iterdir():
            if OURS.fullmatch(path.name):
                path.unlink()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()


def _is_whole(file: Path) -> bool:
    """Whether a kept file has the size its header speaks of."""
    import numpy as np  # noqa: PLC0415 - this module is imported at start-up
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    try:
        if file.suffix == ".npy":
            np.load(file, mmap_mode="r", allow_pickle=False)
        else:
            with safe_open(file, framework="numpy"):
                pass
    except (OSError, ValueError, EOFError, SafetensorError):
        return False
    return True


class Recording:
    """One roll on its way to disk; nothing is kept of it before ``finish``."""

    def __init__(self, parts: Parts, index: int, size: tuple[int, int], fps: int, num_frames: int) -> None:
        self.parts, self.index = parts, index
        self.options = {"size": size, "fps": fps, "num_frames": num_frames}
        self.stack = ExitStack()

    def __enter__(self) -> "Recording":
        from videogen.media.video_writer import open_writer  # noqa: PLC0415 - numpy

        self.parts.folder.mkdir(parents=True, exist_ok=True)
        self.writers = [
            self.stack.enter_context(
                open_writer(self.parts._file(self.index, kind), kind, **self.options)  # type: ignore[arg-type]
            )
            for kind in (("mp4", "npy") if self.options["num_frames"] else ("npy",))  # some show nothing
        ]
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def write(self, frames: Any) -> None:
        """Frames as in ``FrameWriter.write``."""
        for writer in self.writers:
            writer.write(frames)

    def finish(self, latents: Any, state: Mapping[str, Any], effective: Mapping[str, Any]) -> None:
        """Keep the roll: its files get their names, then it counts."""
        from videogen.files import save_tensors, writing  # noqa: PLC0415 - numpy

        tensors = {"latents": latents, **{STATE + name: tensor for name, tensor in state.items()}}
        file = self.parts._file(self.index, "safetensors")
        with writing(file):
            save_tensors(file, tensors)
        for writer in self.writers:
            writer.finish()
            writer.publish(may_replace=True)
        with writing(self.parts.folder):
            self.parts.commit(self.index, effective)


def read_state(folder: Path) -> dict[str, Any] | None:
    """state.json of a folder of parts; None if there is none of ours."""
    return sidecar.read_record(folder / STATE_FILE)
