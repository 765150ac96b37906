"""Diffusion forcing's schedule as arithmetic: which latent frame takes which step in which forward.

Without torch, because plans count its rows. Source: spec skyreels_v2 section 9.1 and 9.5.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One forward of the transformer, for all latent frames of a segment.

    Args:
        indices: per frame, 0 for untouched noise, k where step k-1 is taken, steps + 1 for finished.
        update: per frame, whether the step is taken.
        window: (first frame, end of the frames) that the transformer sees.
    """

    indices: tuple[int, ...]
    update: tuple[bool, ...]
    window: tuple[int, int]


def forcing_rows(
    frames: int, steps: int, *, ar_step: int = 0, block: int = 1, ready: int = 0, base: int | None = None
) -> list[Row]:
    """Yield the rows in order; none when everything is finished from the start.

    Args:
        frames: latent frames; those beyond a multiple of ``block`` get no column.
        steps: denoising steps of a frame.
        ar_step: how many steps a block runs ahead of the next; 0 moves all together.
        block: frames that share a noise level.
        ready: frames from the first on that are finished from the start, counted in whole blocks.
        base: frames that the transformer sees at a time; all unless given.

    Raises:
        ValueError: a window too small for how far apart the blocks are.
    """
    blocks, window = frames // block, (frames if base is None else base) // block
    if window < blocks and ar_step < steps / window:
        raise ValueError(f"ar_step {ar_step} must be at least {steps / window:g} for windows of {window}")
    finished = steps + 1
    state = [finished if index < ready // block else 0 for index in range(blocks)]
    rows, seen = [], window
    while not all(index >= steps for index in state):
        new = [state[0] + 1]
        for index in range(1, blocks):
            new.append(state[index] + 1 if state[index - 1] >= steps else new[index - 1] - ar_step)
        new = [min(max(index, 0), finished) for index in new]
        update = [now not in (before, finished) for now, before in zip(new, state, strict=True)]
        if seen < blocks and update[seen]:
            seen += 1
        rows.append(
            Row(
                indices=tuple(index for index in new for _ in range(block)),
                update=tuple(moves for moves in update for _ in range(block)),
                window=(max(seen - window, 0) * block, seen * block),
            )
        )
        state = new
    return rows


def count_rows(frames: int, steps: int, *, ar_step: int, block: int, ready: int) -> int:
    """Return how many rows ``forcing_rows`` has, where the transformer sees all frames."""
    waiting = frames // block - ready // block
    return steps + (waiting - 1) * min(ar_step, steps) if waiting else 0


def segment_lengths(frames: int, base: int, overlap: int, *, continued: bool) -> list[int]:
    """Return the latent frames of every segment of a long video, overlaps included.

    Args:
        frames: latent frames of the whole; when something is ``continued``, its overlap is counted.
        base: of a full segment.
        overlap: that a segment shares with what comes before it.
        continued: whether there is something before the first segment.
    """
    if not continued and frames <= base:
        return [frames]
    count = (frames - base - 1) // (base - overlap) + 2
    return [min(frames - index * (base - overlap), base) for index in range(count)]
