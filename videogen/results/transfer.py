"""Files of a result in pieces that go from one machine to another, and the result that they become there."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from videogen import files
from videogen.files import Record
from videogen.results import publishing
from videogen.results.output_paths import OutputPaths

PIECE = 1_000_000  # bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """The next bytes of a file of a result; ``name`` is that of a picture where the result is a folder."""

    role: str
    name: str
    content: bytes


def in_folder(outputs: OutputPaths, folder: Path) -> OutputPaths:
    """Return paths of the same names in a private folder, where they cannot be in each other's way."""

    def moved(role: str, path: Path | None) -> Path | None:
        return None if path is None else folder / role / path.name

    path = folder / "video" / outputs.path.name
    latents, last_frame = moved("latents", outputs.latents), moved("last_frame", outputs.last_frame)
    return replace(outputs, path=path, latents=latents, last_frame=last_frame)


def pieces(outputs: OutputPaths) -> Iterator[Piece]:
    """Yield a result's files, its record excepted."""
    for role, path in outputs.files.items():
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            with file.open("rb") as opened:
                while content := opened.read(PIECE):
                    yield Piece(role=role, name="" if file is path else file.name, content=content)


class ArrivingFiles:
    """Temporary files that pieces are added to; ``publish`` makes the result of them."""

    def __init__(self, outputs: OutputPaths) -> None:
        self.outputs, self._stack = outputs, ExitStack()
        self._temporaries: dict[str, Path] = {}

    def add(self, piece: Piece) -> None:
        """Append a piece to its file.

        Raises:
            OutputError: it cannot be written.
        """
        target = self.outputs.files[piece.role]
        with files.writing(target):
            if piece.role not in self._temporaries:
                new = files.temporary_sibling(target, folder=bool(piece.name))
                self._temporaries[piece.role] = self._stack.enter_context(new)
            with (self._temporaries[piece.role] / piece.name).open("ab") as opened:
                opened.write(piece.content)

    def publish(self, record: Record) -> OutputPaths:
        """Give the files their names, and write the record; returns the paths as they are then.

        Raises:
            OutputError: they cannot be written.
        """
        with self._stack, files.writing(self.outputs.path):
            return publishing.publish(self.outputs, self._temporaries, record)

    def close(self) -> None:
        """Remove what was not published."""
        self._stack.close()
