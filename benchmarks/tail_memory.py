"""Peak memory of reading the last 25 frames of a short and a long 1080p video.

    python -m benchmarks.tail_memory [--minutes 10]

Both files hold the same ten seconds of H.264, once and over and over; they are made once and kept in the
temporary folder (0.1 GB a minute). Each run is a process of its own; memory is its peak resident set above
what it held with PyAV imported.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZE, FPS, SECONDS, FRAMES = "1920x1080", 24, 10, 25
FOLDER = Path(tempfile.gettempdir()) / "videogen-tail-memory"


def ffmpeg(target: Path, *words: str) -> Path:
    """Make ``target`` unless it is there."""
    import imageio_ffmpeg  # noqa: PLC0415 - not in the measured process

    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        partial = target.with_stem(f"{target.stem}.part")
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *words, str(partial)]
        subprocess.run(command, check=True)
        partial.rename(target)
    return target


def sources(minutes: int) -> list[Path]:
    """The short and the long video."""
    picture = f"testsrc2=size={SIZE}:rate={FPS}:duration={SECONDS}"
    encoder = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
    short = ffmpeg(FOLDER / f"{SECONDS}s.mp4", "-f", "lavfi", "-i", picture, *encoder)
    again = str(minutes * 60 // SECONDS - 1)
    long = ffmpeg(FOLDER / f"{minutes}min.mp4", "-stream_loop", again, "-i", str(short), "-c", "copy")
    return [short, long]


def peak_resident() -> int:
    """Peak resident set of this process, in bytes (Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_one(path: Path) -> dict[str, float]:
    """Read one tail; the figures of this process."""
    import av  # noqa: F401, PLC0415 - only in the measured process, before the baseline
    import numpy as np  # noqa: F401, PLC0415

    from videogen.media.download import Fetcher  # noqa: PLC0415
    from videogen.media.video_reader import read_video  # noqa: PLC0415

    before, start = peak_resident(), time.perf_counter()
    video = read_video("--input_video", str(path), Fetcher(folder=path.parent))
    tail = video.tail(FRAMES)
    seconds = time.perf_counter() - start
    return {
        "frames": video.num_frames,
        "seconds": seconds,
        "peak": peak_resident() - before,
        "tail": tail.nbytes,
    }


def measured(path: Path) -> dict[str, float]:
    """``run_one`` in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.tail_memory", "--file", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=int, default=10, help="length of the long video")
    parser.add_argument("--file", type=Path, help="run one measurement in this process")
    args = parser.parse_args()
    if args.file:
        print(json.dumps(run_one(args.file)))
        return
    print(f"last {FRAMES} frames of {SIZE} H.264 at {FPS} fps, peak above the idle process")
    print(f"{'length':<8} {'frames':>7} {'seconds':>8} {'peak MB':>8} {'25 frames MB':>13}")
    for path in sources(args.minutes):
        figure = measured(path)
        peak, tail = figure["peak"] / 1e6, figure["tail"] / 1e6
        row = f"{figure['frames']:7.0f} {figure['seconds']:8.2f} {peak:8.1f} {tail:13.1f}"
        print(f"{path.stem:<8} {row}")


if __name__ == "__main__":
    main()
