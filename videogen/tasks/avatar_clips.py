"""Clips of a talking avatar as arithmetic: how a sound of any length is covered by clips of fixed length.

Source: spec talking_avatar section 8.
"""

from dataclasses import dataclass

TARGET_FRAMES = 5  # at the end of a clip, that show the keyframe it works towards


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """One visible clip.

    Args:
        start: row of the sound's features that its first frame belongs to.
        keyframe: which frame of the keyframe clip it works towards.
        first: frames of it that repeat the clip before, and are left out.
        stop: end of the frames that are used; what is behind it is cut off.
    """

    start: int
    keyframe: int
    first: int
    stop: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipPlan:
    """All visible clips; none where the keyframe clip is all there is. ``rows``: of the padded features."""

    rows: int
    clips: tuple[Clip, ...]


def plan_clips(rows: int, num_frames: int, motion: int, drop: int) -> ClipPlan:
    """Cover ``rows`` feature rows (one per video frame) with clips of ``num_frames``.

    Args:
        motion: frames that a clip takes over from the one before.
        drop: frames at the end of every clip but the last that are cut off.
    """
    if rows < num_frames:
        return ClipPlan(rows=rows, clips=())
    step = num_frames - motion - drop
    beyond = (rows - num_frames) % step
    padded = rows + step - beyond if beyond else rows
    count = 1 + (padded - num_frames) // step
    clips, left = [], rows
    for index in range(count):
        first = motion if index else 0
        stop = num_frames - (drop if index < count - 1 else 0)
        stop = min(stop, first + left)
        left -= stop - first
        moment = num_frames - 1 + step * index  # its last frame, with the hidden clip stretched over all
        keyframe = round(moment * ((num_frames - 1) / (padded - 1)))
        clips.append(Clip(start=index * step, keyframe=keyframe, first=first, stop=stop))
    return ClipPlan(rows=padded, clips=tuple(clips))
