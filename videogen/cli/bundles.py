"""--bundle FILE.zip, and --from_metadata FILE.zip, which makes the results of one again."""

import logging
from collections.abc import Sequence
from pathlib import Path

from videogen.cli.sources import BUNDLE, Asked, fetched_for, from_request
from videogen.cli.task_choice import with_task
from videogen.engine.outcome import Outcome
from videogen.errors import InputError
from videogen.media.inputs import InputFile
from videogen.planning.origins import Origin
from videogen.planning.request import Item
from videogen.results import bundle
from videogen.results.formatting import format_bytes
from videogen.tasks.options import RunSettings, merge
from videogen.tasks.table import INPUTS

logger = logging.getLogger(__name__)

FLAG = "--from_metadata"


def write(settings: RunSettings, outcomes: Sequence[Outcome]) -> None:
    """Pack the results of a run, as far as there are any.

    Raises:
        OutputError: the bundle cannot be written.
    """
    from videogen.media.stored_frames import StoredFrames  # noqa: PLC0415 - numpy

    def packed_input(item: InputFile) -> bundle.PackedInput:
        fps = item.fps if isinstance(item, StoredFrames) else None
        return bundle.PackedInput(item.sha256, item.path, fps)

    packed = [
        bundle.Packed(
            results=outcome.result.outputs.paths,
            request=outcome.result.record["request"],
            inputs={name: [*map(packed_input, items)] for name, items in outcome.plan.inputs.items()},
        )
        for outcome in sorted(outcomes, key=lambda outcome: outcome.plan.index)
        if outcome.result is not None
    ]
    target = Path(str(settings.bundle)).expanduser()
    if not packed:
        logger.warning("--bundle %s: nothing was made, so it is not written", target)
        return
    bundle.write(target, packed)
    logger.info("%s: %d results, %s", target, len(packed), format_bytes(target.stat().st_size))


def read_bundle(asked: Asked, workdir: Path) -> list[Item]:
    """Return the videos of a bundle; flags hold for all of them, before what it says.

    Raises:
        InputError: it cannot be used, or what it needs must be given as a flag.
    """
    source = str(asked.settings.from_metadata)
    found = BUNDLE.fullmatch(source)
    assert found is not None
    if asked.settings.jobs is not None:
        raise InputError(FLAG, source, "is a list of videos itself", "leave --jobs out")
    file = Path(found["file"]).expanduser()
    if not file.is_file():
        raise InputError(FLAG, source, "no such file", "give a .zip made with --bundle")
    folder = workdir / "bundle"
    folder.mkdir()
    lines = list(enumerate(bundle.read(FLAG, file, folder, INPUTS), start=1))
    if found["number"] is not None:
        chosen = [line for line in lines if line[0] == int(found["number"])]
        if not chosen:
            what = f"has {len(lines)} results"
            raise InputError(FLAG, source, what, f"nearest {file}:{len(lines)}")
        lines = chosen
    items, notes, ignored = [], set[str](), set[str]()
    for number, request in lines:
        label = f"{FLAG} {file} line {number}"
        earlier, unsaid = from_request(request, f"{file}:{number}", asked.values)
        values = merge(earlier, asked.values)
        taken = {name: value for name, value in earlier.items() if name not in asked.values}
        origins = {**asked.origins, **dict.fromkeys(taken, Origin.METADATA)}
        items.append(Item(values=with_task(values), label=label, origins=origins))
        notes.update(fetched_for(taken))
        ignored.update(unsaid)
    for what in sorted(notes):
        logger.info("%s names %s", file, what)
    if ignored:
        logger.warning("%s cannot say %s: give them as flags", file, ", ".join(sorted(ignored)))
    return items
