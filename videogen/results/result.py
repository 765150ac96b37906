"""A finished video as an object: its files, its frames and sound, its record. Needs no torch."""

import base64
import html
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from videogen import files
from videogen.errors import InputError
from videogen.files import Record
from videogen.media import output_formats
from videogen.media.download import Fetcher
from videogen.media.output_formats import Encoding
from videogen.results import publishing, sidecar
from videogen.results.output_paths import OutputPaths, check_saved, kind_of

if TYPE_CHECKING:
    import numpy as np

LARGEST_SHOWN = 50_000_000  # bytes of a file that a notebook gets a copy of


@dataclass(frozen=True, kw_only=True, repr=False)
class Result:
    """A finished video: its files, and ``record``, the content of its sidecar.

    ``frames`` and ``audio`` are read from the file when they are first asked for, and kept.
    """

    outputs: OutputPaths
    record: Record

    @classmethod
    def of(cls, path: str | Path) -> Self:
        """Return the result of an earlier run.

        Raises:
            InputError: no such file, or it has no sidecar of videogen's.
        """
        kind, path = kind_of(str(path)), Path(path)
        record = sidecar.read_record(OutputPaths(path=path, kind=kind).sidecar) if kind else None
        if kind is None or record is None or not path.exists():
            raise InputError("path=", path, "is no result of videogen", "give the path of a video it made")
        return cls(outputs=OutputPaths(path=path, kind=kind), record=record)

    def __repr__(self) -> str:
        return f"Result.of({str(self.path)!r})"

    @property
    def path(self) -> Path:
        """Return the path of the video."""
        return self.outputs.path

    @property
    def metadata(self) -> Record:
        """Return all that is known of it: options, seed, model, versions, timings, digests."""
        return self.record

    @property
    def fps(self) -> int:
        """Return the frames per second."""
        return int(self.record["fps"])

    @cached_property
    def frames(self) -> "np.ndarray":
        """Return the frames, uint8 RGB [F, H, W, 3], as the file has them (exact in .npy, .png and ffv1)."""
        import numpy as np  # noqa: PLC0415 - this module is loaded at start-up

        from videogen.media.video_reader import read_video  # noqa: PLC0415 - PyAV

        if self.outputs.kind == output_formats.STILL:
            from PIL import Image  # noqa: PLC0415

            return np.asarray(Image.open(self.path).convert("RGB"))[None]
        return np.stack(list(read_video("path=", str(self.path), Fetcher(folder=Path())).frames()))

    @cached_property
    def audio(self) -> "tuple[np.ndarray, int] | None":
        """Return the sound, float32 [channels, samples], and its rate; None without."""
        from videogen.media import audio  # noqa: PLC0415 - PyAV

        return audio.samples(self.path) if self.outputs.kind in output_formats.CONTAINERS else None

    def save(
        self,
        path: str | Path,
        *,
        codec: str | None = None,
        crf: int | None = None,
        overwrite: bool = False,
    ) -> "Result":
        """Write the video as another file, with its sidecar; returns that result.

        It is encoded from ``frames``: for an exact copy in another format, make it as .npy first.

        Args:
            path: its suffix says what it is written as; without one it is a folder of PNGs.
            codec: one of those of the format.
            crf: quality of the codec, lower is better.
            overwrite: replace an earlier result.

        Raises:
            InputError: an unknown format or codec, or something else has the name.
            OutputError: it cannot be written.
        """
        from videogen.media import video_writer  # noqa: PLC0415 - numpy

        kind, target = kind_of(str(path)), Path(path).expanduser()
        if kind is None:
            what = f"must be {', '.join(output_formats.SUFFIXES)} or a folder"
            raise InputError("path=", path, what, f"try {target.with_suffix('.mp4')}")
        codecs = output_formats.CONTAINERS[kind].codecs if kind in output_formats.CONTAINERS else ()
        if codec is not None and codec not in codecs:
            what = f"{target.suffix or 'a folder'} holds {', '.join(codecs) or 'no codec'}"
            raise InputError("codec=", codec, what, "leave it out")
        outputs = OutputPaths(path=target, kind=kind, may_replace=overwrite)
        check_saved(outputs, overwrite=overwrite)
        sound = self.audio if output_formats.has_sound(target.name) else None
        with video_writer.open_writer(
            target,
            kind,
            size=(self.frames.shape[2], self.frames.shape[1]),
            fps=self.fps,
            num_frames=len(self.frames),
            comment=sidecar.comment(self.record),
            audio=video_writer.Audio(self.path, 0.0, len(self.frames) / self.fps) if sound else None,
            encoding=Encoding(codec=codec, crf=crf),
        ) as output:
            output.write(self.frames)
            output.finish()
            record = {**self.record, "encoded_from": self.path.name}
            with files.writing(target):
                outputs = publishing.publish(outputs, {"video": output.temporary}, record)
        return type(self)(outputs=outputs, record=record)

    def _repr_html_(self) -> str:
        """Return the video as a notebook shows it."""
        kind = output_formats.MIME_TYPES.get(self.outputs.kind)
        name = html.escape(str(self.path))
        if kind is None or self.path.stat().st_size > LARGEST_SHOWN:
            return f"<code>{name}</code>"
        source = f"data:{kind};base64,{base64.b64encode(self.path.read_bytes()).decode()}"
        if kind.startswith("image"):
            return f'<img src="{source}" alt="{name}">'
        return f'<video controls loop src="{source}" title="{name}"></video>'
