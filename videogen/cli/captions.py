"""--caption_only: what the models that write prompts say, without a video."""

import json
import logging
from pathlib import Path

from videogen.engine.prompt_writer import write_captions
from videogen.errors import InputError
from videogen.media.download import Fetcher
from videogen.planning.request import check_runtime
from videogen.prompts.roles import find_prompt_writers
from videogen.tasks.options import Options
from videogen.tasks.table import find

logger = logging.getLogger(__name__)


def caption(options: Options, workdir: Path, *, dry_run: bool) -> str:
    """Return what the models that write prompts say, as JSON."""
    from videogen.media.video_reader import read_video  # noqa: PLC0415 - PyAV

    check_runtime(options)
    given = options.input_video
    if given is None and not (options.prompt and options.prompt_enhancer):
        what = "needs --input_video, or --prompt with --prompt_enhancer"
        raise InputError("--caption_only", None, what, "give one of the two")
    task = find(options.task_type) if options.task_type else None
    role = "describer" if task is not None and task.describes else "captioner"
    prompt_writers = find_prompt_writers(options, needed=() if given is None else (role,))
    fetcher = Fetcher(folder=workdir, timeout=options.download_timeout)
    video = None if given is None else read_video("--input_video", given, fetcher)
    for note in video.notes if video is not None else ():
        logger.warning(note)
    for found in prompt_writers.values():
        if found.note:
            logger.warning(found.note)
    titles = {role: found.title for role, found in prompt_writers.items()}
    said = titles if dry_run else write_captions(options, video, role)
    return json.dumps(said, indent=2, ensure_ascii=False)
