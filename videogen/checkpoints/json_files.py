"""JSON files of checkpoints."""

import os
from pathlib import Path
from typing import Any

from videogen.errors import CheckpointError
from videogen.files import LARGEST_JSON, parse_json, read_text
from videogen.media.file_contents import EDGE, other_content


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object of a checkpoint.

    Raises:
        CheckpointError: the file is not readable or not a JSON object.
    """
    if file.is_file() and (other := other_content(file)):
        raise CheckpointError(f"{file}: {other}")
    try:
        content = parse_json(read_text(file, LARGEST_JSON))
    except ValueError as error:
        raise CheckpointError(f"{file}: not readable as JSON ({error}); download it again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: not a JSON object; download it again")
    return content


def cut_json(file: Path) -> str | None:
    """Return what is wrong with a JSON file whose end is missing, and what to do."""
    if file.suffix != ".json":
        return None
    with file.open("rb") as opened:
        opened.seek(-min(EDGE, file.stat().st_size), os.SEEK_END)
        end = opened.read().rstrip()
    return None if end.endswith((b"}", b"]")) else "is no JSON, or not all of it; download it again"
