"""What a file holds in place of what its name says: pointers, pages and downloads that did not finish."""

from pathlib import Path

EDGE = 512  # bytes that tell what a file holds
# How files begin that stand in place of others -> what they are, and what to do.
_PAGE = "is a web page, not the file itself; download it again with its download link"
CONTENTS = (
    (
        b"version https://git-lfs",
        "is a Git LFS pointer, not the file itself; run 'git lfs pull' in its folder",
    ),
    (b"\x00\x05\x16\x07", "is macOS metadata, not the file itself; copy the file without '._' in its name"),
    (bytes(64), "begins with zeros: its download did not finish; download it again"),
    *((begin, _PAGE) for begin in (b"<!doctype", b"<html", b"<head", b"<?xml")),
)
# Ends of the names that programs give to downloads until they are complete.
UNFINISHED = (".aria2", ".crdownload", ".incomplete", ".part", ".partial", ".download", ".!qB", ".opdownload")


def other_content(file: Path) -> str | None:
    """Return what a file holds in place of what its name says, and what to do; None if nothing is odd."""
    with file.open("rb") as opened:
        start = opened.read(EDGE)
    text = start.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if not start:
        return "is empty; download it again"
    if known := next(
        (what for begin, what in CONTENTS if start.startswith(begin) or text.startswith(begin)), None
    ):
        return known
    if unfinished := next((end for end in UNFINISHED if Path(f"{file}{end}").exists()), None):
        return f"its download did not finish ({file.name}{unfinished} is beside it); resume it"
    return None


def unfinished_downloads(folder: Path) -> list[str]:
    """Return the names of files in a folder that a download did not finish."""
    return sorted(path.name for path in folder.glob("*") if path.name.endswith(UNFINISHED))
