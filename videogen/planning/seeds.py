"""One seed for every video (spec hunyuan section 2)."""

from collections.abc import Callable, Sequence


def video_seeds(
    given: int | Sequence[int] | None, items: int, videos: int, draw: Callable[[], int]
) -> list[int]:
    """Return the seeds of ``videos`` videos for each of ``items`` prompts, item by item.

    Args:
        given: nothing, and each is drawn; one, and every item counts up from it; one per item, from which it
            counts up; or all of them.

    Raises:
        ValueError: another number of seeds, or something that is none.
    """
    if given is None:
        return [draw() for _ in range(items * videos)]
    if isinstance(given, int):
        given = [int(given)] * items
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ValueError(f"{given} is no seed and no list of seeds")
    if len(given) == items:
        return [int(seed) + video for seed in given for video in range(videos)]
    if len(given) != items * videos:
        counts = " or ".join(str(count) for count in sorted({items, items * videos}))
        raise ValueError(f"{len(given)} seeds; {counts} can be given")
    return [int(seed) for seed in given]
