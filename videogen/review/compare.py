"""Comparing two results: the options that differ, their frames, and both side by side in one video."""

import math
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from videogen.errors import InputError, brief
from videogen.files import Record
from videogen.media.contact_sheet import headings
from videogen.media.shown import scaled
from videogen.media.video_writer import PendingFile
from videogen.review.found import Found
from videogen.review.frames import open_frames
from videogen.review.outputs import new_video
from videogen.review.quality import WINDOW, psnr, ssim
from videogen.review.settings import differences, shown

FLAG = "--diff"
LONGEST_VALUE = 24  # letters of an option's value in a title


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How alike the frames of two videos are, frame by frame; ``notes`` say what was done to compare them."""

    psnr: list[float]
    ssim: list[float]
    notes: list[str]

    def to_json(self) -> Record:
        """Return it as plain JSON; equal frames have no PSNR."""
        finite = [value for value in self.psnr if math.isfinite(value)]
        worst = int(np.argmin(self.ssim))
        return {
            "frames": len(self.psnr),
            "equal_frames": len(self.psnr) - len(finite),
            "psnr": {"min": min(finite), "mean": sum(finite) / len(finite)} if finite else None,
            "ssim": {"min": min(self.ssim), "mean": sum(self.ssim) / len(self.ssim)},
            "worst_frame": worst if finite else None,
            "notes": self.notes,
        }

    def lines(self) -> list[str]:
        """Return it as it is printed."""
        summary, notes = self.to_json(), [f"note       {note}" for note in self.notes]
        if summary["psnr"] is None:
            return [f"frames     all {summary['frames']} are equal", *notes]
        equal = f"; {summary['equal_frames']} of {summary['frames']} frames are equal"
        return [
            "PSNR       min {min:.2f} dB, mean {mean:.2f} dB".format(**summary["psnr"])
            + (f" of the others{equal}" if summary["equal_frames"] else ""),
            "SSIM       min {min:.4f}, mean {mean:.4f}".format(**summary["ssim"]),
            f"worst      frame {summary['worst_frame']} of {summary['frames']}",
            *notes,
        ]


def compare(one: Found, other: Found, output: Path | None) -> Likeness:
    """Compare the frames of two results, and write both side by side if there is an ``output``.

    Frames are compared one by one until the shorter video ends; the other's are scaled to the size of the
    first. Side by side, the last frame of the shorter one stays, and ``titles`` are above.

    Raises:
        InputError: a video that cannot be read, or an output that cannot be.
        OutputError: it cannot be written.
    """
    videos = [open_frames(FLAG, found) for found in (one, other)]
    longest, shortest = max(video.length for video in videos), min(video.length for video in videos)
    likeness = Likeness(psnr=[], ssim=[], notes=[])
    if longest != shortest:
        counts = " and ".join(str(video.length) for video in videos)
        likeness.notes.append(f"they have {counts} frames; the first {shortest} are compared")
    with ExitStack() as stack:
        writer: PendingFile | None = None
        left = right = above = np.empty((0, 0, 3), np.uint8)
        for index in range(longest):
            left, right = next(videos[0].each, left), next(videos[1].each, right)
            height, width = left.shape[:2]
            if not index and left.shape != right.shape:
                sizes = f"{width}x{height} and {right.shape[1]}x{right.shape[0]}"
                likeness.notes.append(f"they are {sizes} pixels; the second is scaled to the first")
            if min(height, width) < WINDOW:
                what = f"is {width}x{height} pixels, and windows of {WINDOW}x{WINDOW} are compared"
                raise InputError(FLAG, one.path, what, "give larger videos")
            right = scaled(right, (width, height))
            if index < shortest:
                likeness.psnr.append(psnr(left, right))
                likeness.ssim.append(ssim(left, right))
            if output is not None:
                if writer is None:
                    above = headings(titles(one, other), width)
                    size = (2 * width, len(above) + height)
                    writer = stack.enter_context(new_video(output, size, one.number("fps"), longest))
                writer.write(np.concatenate([above, np.concatenate([left, right], axis=1)])[None])
    return likeness


def titles(one: Found, other: Found) -> list[str]:
    """Return the names of two results, each with its values of the options that differ."""
    said = [one.path.stem, other.path.stem]
    for index, (name, *values) in enumerate(differences(one, other)):
        for side, value in enumerate(values):
            said[side] += f"{', ' if index else ': '}{name} {brief(shown(value), LONGEST_VALUE)}"
    return said


def option_lines(one: Found, other: Found) -> list[str]:
    """Return the options that differ, as they are printed."""
    differing = differences(one, other)
    lines = [f"option     --{name} {shown(first)} | {shown(second)}" for name, first, second in differing]
    return lines or ["options    all are equal"]
