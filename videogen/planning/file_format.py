"""Whether a result can be written as it was asked for: its suffix, codec, quality and number of frames."""

from collections.abc import Iterator

from videogen.errors import InputError
from videogen.media.output_formats import CODECS, CONTAINERS, STILL, container_of
from videogen.results.output_paths import kind_of
from videogen.tasks.options import Options


def file_format_warnings(options: Options, num_frames: int) -> Iterator[str]:
    """Yield what has no effect on the file, one line each.

    Raises:
        InputError: a codec that the file cannot hold, a quality that it does not have, or a PNG of a video.
    """
    output, asked = options.output, options.codec
    kind = kind_of(output) if output else container_of(asked)
    if kind is None:  # the name is refused elsewhere
        return
    if kind == STILL and num_frames != 1:
        what = f"is one picture, and the video has {num_frames} frames"
        raise InputError("--output", output, what, "add --num_frames 1, or give a folder")
    if (container := CONTAINERS.get(kind)) is None:
        given = {"codec": asked, "crf": options.crf, "video_colors": options.video_colors != "bt709"}
        for name in (name for name, value in given.items() if value not in (None, False)):
            yield f"--{name} has no effect: what is written is lossless or a GIF"
        return
    if asked is not None and asked not in container.codecs:
        what = f".{kind} holds {' or '.join(container.codecs)}"
        raise InputError("--codec", asked, what, f"give --output a name with .{container_of(asked)}")
    codec = CODECS[asked or container.codecs[0]]
    if options.crf is not None and codec.crf is None:
        yield f"--crf has no effect on {asked or container.codecs[0]}"
    elif options.crf is not None and options.crf > codec.worst:
        raise InputError("--crf", options.crf, f"at most {codec.worst}", f"nearest {codec.worst}")
    if codec.is_rgb and options.video_colors != "bt709":
        yield f"--video_colors has no effect on {asked}, which stores RGB"
