"""Writers: whole under their name or not at all."""

import os
import signal
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from videogen.files import OutputError, remove, stale_temporaries, temporary_sibling
from videogen.media import video_writer
from videogen.media.probe import read_comment
from videogen.media.video_writer import _Background, _PngWriter, open_writer

FRAMES = np.random.default_rng(0).integers(0, 255, (9, 32, 48, 3), dtype=np.uint8)


def write(target, kind, frames=FRAMES, comment=""):
    with open_writer(target, kind, size=(48, 32), fps=24, num_frames=len(FRAMES), comment=comment) as video:
        for frame in frames:
            video.write(frame[None])
        video.finish()
        video.publish()


def test_mp4_is_as_published(tmp_path):
    write(tmp_path / "a.mp4", "mp4", comment='{"prompt": "\\"quoted\\" = ; é \\n"}')
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.average_rate) == (48, 32, 24)
        assert sum(1 for _ in container.decode(video=0)) == 9
    assert read_comment(tmp_path / "a.mp4") == '{"prompt": "\\"quoted\\" = ; é \\n"}'


def test_names_are_data(tmp_path):
    folder = tmp_path / "a 'b' $(touch x) \"c\" é;&"
    folder.mkdir()
    for name in ("-i.mp4", "%d [0].mp4", "pipe:1.mp4", "$HOME.gif"):
        write(folder / name, name[-3:])
        assert (folder / name).stat().st_size > 0
    assert len(list(folder.iterdir())) == 4
    assert not (tmp_path / "x").exists()


def test_relative_names_are_no_protocols(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("file:a.mp4"), "mp4")
    assert (tmp_path / "file:a.mp4").stat().st_size > 0


def test_npy_and_png_are_lossless(tmp_path):
    write(tmp_path / "a.npy", "npy")
    assert np.array_equal(np.load(tmp_path / "a.npy"), FRAMES)
    write(tmp_path / "a", "png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a/000008.png")), FRAMES[8])


@pytest.mark.parametrize("kind", ["mp4", "gif", "npy", "png"])
def test_nothing_appears_before_the_end_or_after_a_failure(tmp_path, kind):
    target = tmp_path / ("a" if kind == "png" else f"a.{kind}")
    with (
        pytest.raises(KeyboardInterrupt),
        open_writer(target, kind, size=(48, 32), fps=24, num_frames=9) as video,
    ):
        video.write(FRAMES[:3])
        assert not target.exists()
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_too_few_frames_are_noticed(tmp_path):
    with pytest.raises(OutputError, match="instead of"):
        write(tmp_path / "a.npy", "npy", FRAMES[:5])
    assert not list(tmp_path.iterdir())


def test_an_existing_result_survives_a_failure(tmp_path):
    (tmp_path / "a.mp4").write_text("old")
    with (
        pytest.raises(RuntimeError),
        open_writer(tmp_path / "a.mp4", "mp4", size=(48, 32), fps=24, num_frames=9) as video,
    ):
        video.write(FRAMES)
        raise RuntimeError
    assert (tmp_path / "a.mp4").read_text() == "old"


def test_replacing_a_file_and_a_folder(tmp_path):
    for kind in ("npy", "png"):
        target = tmp_path / ("a" if kind == "png" else "a.npy")
        for count in (9, 3):
            with open_writer(target, kind, size=(48, 32), fps=24, num_frames=count) as video:
                video.write(FRAMES[:count])
                video.finish()
                assert video.publish() == target
    assert len(np.load(tmp_path / "a.npy")) == 3
    assert len(list((tmp_path / "a").iterdir())) == 3
    assert len(list(tmp_path.iterdir())) == 2


def test_leftovers_of_dead_processes_are_swept(tmp_path):
    """A process is alive if it holds its lock; in containers every process has the id 1."""
    dead, other = (tmp_path / f".{name}.mp4.{os.getpid()}-0123abcd.part.mp4" for name in "ab")
    folder = tmp_path / ".a.mp4.1-0123abcd.part"
    for path in (dead, other):
        path.write_text("")
    folder.mkdir()
    with temporary_sibling(tmp_path / "a.mp4") as alive, temporary_sibling(tmp_path / "a.mp4") as second:
        assert alive != second
        assert sorted(tmp_path.iterdir()) == sorted([alive, second, other])
        assert not list(stale_temporaries(tmp_path, "a.mp4"))
    assert list(tmp_path.iterdir()) == [other]


def test_of_several_sweepers_one_gets_a_leftover(tmp_path):
    left = tmp_path / ".a.npy.1-0123abcd.part.npy"
    left.write_text("")
    for path in stale_temporaries(tmp_path, "*.npy"):
        assert path == left
        assert not list(stale_temporaries(tmp_path, "a.npy"))
        remove(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stopped", ["writing", "ending", "aborting"])
def test_an_encoder_that_hangs_is_given_up(tmp_path, monkeypatch, stopped):
    monkeypatch.setattr(video_writer, "ENCODER_TIMEOUT", 0.5)
    large = np.zeros((4, 512, 512, 3), np.uint8)

    def make():
        with open_writer(tmp_path / "a.mp4", "mp4", size=(512, 512), fps=24, num_frames=400) as video:
            video.write(large)
            encoder = video.writer.writer
            while encoder.count < len(large):
                time.sleep(0.01)
            os.kill(encoder.process.pid, signal.SIGSTOP)
            if stopped == "aborting":
                raise KeyboardInterrupt
            for _ in range(100 if stopped == "writing" else 1):
                video.write(large)
            video.finish()

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt if stopped == "aborting" else OutputError) as error:
        make()
    assert time.monotonic() - started < 10
    if stopped != "aborting":
        assert "a.mp4: the video encoder hung for 0.5 s and was ended" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_the_reason_of_a_failure_is_not_hidden_by_the_end(tmp_path, monkeypatch):
    """What is still in the buffer of a file cannot be written when it is closed, either."""

    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

        def close(self):
            self.write(b"")

    with (
        pytest.raises(OutputError, match=r"a\.npy: No space left on device; free some space"),
        open_writer(tmp_path / "a.npy", "npy", size=(48, 32), fps=24, num_frames=9) as video,
    ):
        video.writer.writer.file.close()
        video.writer.writer.file = Full()
        video.write(FRAMES)
        video.finish()
    assert not list(tmp_path.iterdir())


class Slow:
    """Writes when it is let; may fail."""

    def __init__(self, error=None):
        self.let, self.written, self.error, self.log = threading.Event(), [], error, []
        self.begun = threading.Event()

    def write(self, frames):
        self.begun.set()
        assert self.let.wait(10)
        if self.error is not None:
            raise self.error
        self.written.append(len(frames))

    def finish(self):
        self.log.append("finish")

    def abort(self):
        self.log.append("abort")


def test_frames_are_made_while_others_are_written():
    slow = Slow()
    background = _Background(slow)
    for count in (1, 4, 3):
        background.write(FRAMES[:count])  # does not wait
    assert not slow.written
    full = threading.Thread(target=background.write, args=(FRAMES[:2],), daemon=True)
    full.start()
    full.join(0.2)
    assert full.is_alive()  # no more than a few chunks are ever held
    slow.let.set()
    full.join(10)
    background.finish()
    assert (slow.written, slow.log) == ([1, 4, 3, 2], ["finish"])


def test_a_failure_in_the_background_is_raised_and_nothing_hangs():
    slow = Slow(OSError(28, "No space left on device"))
    background = _Background(slow)
    slow.let.set()
    with pytest.raises(OSError, match="No space left"):
        for _ in range(50):
            background.write(FRAMES[:1])
    with pytest.raises(OSError, match="No space left"):
        background.finish()
    background.abort()
    assert (slow.written, set(slow.log)) == ([], {"abort"})


def test_nothing_is_written_after_an_abort():
    slow = Slow()
    background = _Background(slow)
    background.write(FRAMES[:1])
    background.write(FRAMES[:2])
    assert slow.begun.wait(10)
    threading.Timer(0.1, slow.let.set).start()
    background.abort()
    assert (slow.written, set(slow.log)) == ([1], {"abort"})
    _Background(Slow()).abort()  # before any frame


def test_a_lost_wake_up_does_not_hang(tmp_path):
    """As Ctrl-C may leave it in ``Condition.notify``: a waiter that waits no more is the first to be told."""
    video = video_writer._Video("still", (4, 4), 24, 1, "", None, video_writer.PLAIN)
    background = _Background(_PngWriter(tmp_path / "a.png", video))
    background.write(np.zeros((1, 4, 4, 3), np.uint8))
    while not background.queue.not_empty._waiters:
        pass
    gone = threading.Lock()
    gone.acquire()
    background.queue.not_empty._waiters.appendleft(gone)
    background.abort()
    assert not background.thread.is_alive()
