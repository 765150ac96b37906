"""Publishing, locks and stored segments without a model: killed or out of space at every step."""

import errno
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.faults.harness import DIED, Steps, run
from videogen import files
from videogen.errors import InputError, VideoGenError
from videogen.media.video_writer import open_writer
from videogen.results import publishing, sidecar
from videogen.results.output_locks import OutputLocks
from videogen.results.output_paths import OverwritePolicy, choose_output_paths, reserve
from videogen.results.resume_store import ResumeStore, SegmentWriter

SIZE, COUNT = (16, 16), 2
GROWING = ("open", "os.rename", "os.link", "os.mkdir")  # what a full disk may refuse


def frames(seed):
    return np.full((COUNT, *SIZE, 3), seed, np.uint8)


@dataclass
class Job:
    """A video of one colour, made as the engine makes one: reserve, skip what is finished, write, publish."""

    folder: Path
    suffix: str
    seed: int

    def make(self, *, overwrite=False, resume=False):
        policy = OverwritePolicy(overwrite=overwrite, resume=resume)
        options = SimpleNamespace(
            output=str(self.folder / f"a{self.suffix}"),
            output_dir=None,
            save_latents=str(self.folder / "a.safetensors"),
            save_last_frame=None,
            contact_sheet=None,
        )
        outputs = choose_output_paths(options, task="", index=1, seed=self.seed, stamp="")
        with OutputLocks() as locks:
            if overwrite or resume:
                publishing.finish_interrupted(outputs)
            outputs = reserve(outputs, options, {}, policy, [], label="", locks=locks)
            record = sidecar.read_record(outputs.sidecar)
            if resume and record is not None and all(path.exists() for path in outputs.paths):
                if record["seed"] != self.seed:
                    raise InputError("--resume", outputs.path, "was made with another seed", "--overwrite")
                if publishing.is_whole(record, outputs):
                    return 0
            with (
                files.writing(outputs.path),
                open_writer(outputs.path, outputs.kind, size=SIZE, fps=24, num_frames=COUNT) as video,
            ):
                video.write(frames(self.seed))
                video.finish()
                with files.temporary_sibling(outputs.latents) as latents:
                    latents.write_text(str(self.seed))
                    complete = {"video": video.temporary, "latents": latents}
                    publishing.publish(outputs, complete, {"schema": 1, "seed": self.seed})
        return 0

    def command(self, **policy):
        try:
            return self.make(**policy)
        except VideoGenError as error:
            sys.stderr.write(f"{error}\n")
            return error.exit_code

    def check(self):
        """Everything is there, of this seed, and nothing else is."""
        path = self.folder / f"a{self.suffix}"
        made = np.load(path) if self.suffix else [np.asarray(Image.open(p)) for p in sorted(path.iterdir())]
        assert np.array_equal(np.stack(list(made)), frames(self.seed))
        assert (self.folder / "a.safetensors").read_text() == str(self.seed)
        assert sidecar.read_record(self.folder / "a.json")["seed"] == self.seed
        assert sorted(p.name for p in self.folder.iterdir()) == sorted([path.name, "a.json", "a.safetensors"])


def full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out"


def begin(folder, suffix, replaced, at):
    """A folder in which a video of seed 1 is, or is not, and the job that makes seed 2 there."""
    folder = folder / str(at)
    folder.mkdir(parents=True)
    if replaced:
        Job(folder, suffix, 1).make()
    return Job(folder, suffix, 2)


@pytest.mark.parametrize("fault", ["killed", "full"])
@pytest.mark.parametrize("replaced", [False, True], ids=["new", "overwrite"])
@pytest.mark.parametrize("suffix", [".npy", ""], ids=["file", "folder"])
def test_a_fault_at_every_step(folder, tmp_path, suffix, replaced, fault):
    """Afterwards --resume ends at the right frames; or refuses, if the old result is still the whole one."""
    said, log, refused, at = tmp_path / "said", tmp_path / "log", 0, 0
    how = {"act": full, "kinds": GROWING} if fault == "full" else {}
    while True:
        job = begin(folder, suffix, replaced, at)
        ended = run(
            lambda job=job: job.command(overwrite=replaced), said, Steps(job.folder, at=at, log=log, **how)
        )
        if len(log.read_text().splitlines()) <= at:  # there were no more steps
            break
        if fault == "killed":
            assert ended.code == DIED
        elif ended.code:  # the test file of ``check_writable`` has a second way
            assert ended.code in (1, 2)
            assert "No space left on device" in ended.err
            assert ended.err.count("\n") == 1
            assert not list(job.folder.glob(".a.lock"))
        if (code := job.command(resume=True)) != 0:
            assert (code, replaced) == (2, True)
            assert np.array_equal(begun(job), frames(1))
            assert (job.folder / "a.safetensors").read_text() == "1"
            refused += 1
            assert job.command(overwrite=True) == 0
        job.check()
        at += 1
    assert at > 5
    assert refused < at - 2 if replaced else not refused


def begun(job):
    path = job.folder / f"a{job.suffix}"
    return (
        np.load(path) if job.suffix else np.stack([np.asarray(Image.open(p)) for p in sorted(path.iterdir())])
    )


@pytest.mark.parametrize("replaced", [False, True], ids=["new", "overwrite"])
@pytest.mark.parametrize("suffix", [".npy", ".gif", ".mp4", ""])
def test_every_file_gets_its_name_by_a_rename(folder, tmp_path, suffix, replaced):
    """The record too: nothing is ever written under a final name."""
    job, log = begin(folder, suffix, replaced, 0), tmp_path / "log"
    assert (
        run(lambda: job.command(overwrite=replaced), tmp_path / "said", Steps(job.folder, log=log)).code == 0
    )
    written = [line.split(" ", 1)[1] for line in log.read_text().splitlines() if line.startswith("open ")]
    made = [path.name for path in job.folder.iterdir()]
    assert {f"a{suffix}", "a.json", "a.safetensors"} == {*made}
    for name in ("a.json", "a.safetensors"):
        assert any(other.startswith(f".{name}.") for other in written)
    assert not {*made} & {*written}


def test_every_file_of_a_segment_gets_its_name_by_a_rename(tmp_path):
    store, log = ResumeStore(tmp_path / "a.parts", "hash", {"seed": 1}), tmp_path / "log"

    def write():
        with SegmentWriter(store, 0, SIZE, 24, COUNT) as writer:
            writer.write(frames(1))
            writer.finish(torch.zeros(1), {}, {})
        return 0

    assert run(write, tmp_path / "said", Steps(store.folder, log=log)).code == 0
    made = [path.name for path in store.folder.iterdir()]
    assert len(made) == 4
    written = [line.split(" ", 1)[1] for line in log.read_text().splitlines() if line.startswith("open ")]
    assert len({name.split("-")[0] for name in written}) >= 3  # the mp4 is written by its encoder
    assert not {*made} & {*written}


def test_an_old_record_never_vouches_for_a_new_video(folder):
    folder.mkdir()
    old = Job(folder, ".npy", 1)
    old.make()
    record = (folder / "a.json").read_text()
    Job(folder, ".npy", 2).make(overwrite=True)
    (folder / "a.json").write_text(record)
    old.make(resume=True)
    old.check()


def test_a_result_of_somebody_else_is_not_replaced(folder, tmp_path):
    """The killed run found the name free; then another file got it."""
    folder.mkdir()
    job = Job(folder, ".npy", 2)
    for at in range(30):
        ended = run(job.command, tmp_path / "said", Steps(folder, at=at, kinds=("os.link",)))
        if ended.code == DIED:
            break
    (folder / "a.npy").write_text("theirs")
    with pytest.raises(InputError, match="is no earlier result of videogen"):
        job.make(resume=True)
    assert (folder / "a.npy").read_text() == "theirs"


def test_a_second_process_is_refused(folder, tmp_path):
    folder.mkdir()
    with OutputLocks() as locks:
        assert locks.acquire(folder, "a") is None
        assert locks.acquire(folder, "a") is None  # two names of one run may share it
        for policy in ({}, {"overwrite": True}, {"resume": True}):
            ended = run(lambda policy=policy: Job(folder, ".npy", 1).command(**policy), tmp_path / "said")
            assert ended.code == 2
            assert "another run is writing it (" in ended.err
        assert [path.name for path in folder.iterdir()] == [".a.lock"]
    assert not list(folder.iterdir())
    Job(folder, ".npy", 1).make()


def test_a_lock_of_a_killed_process_is_taken_over(folder, tmp_path):
    folder.mkdir()
    ended = run(Job(folder, ".npy", 1).command, tmp_path / "said", Steps(folder, at=8))
    assert ended.code == DIED
    assert (folder / ".a.lock").exists()
    job = Job(folder, ".npy", 2)
    job.make()
    job.check()


def test_without_locks_of_the_file_system_the_lock_file_counts(folder, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files.fcntl, "flock", unsupported)
    with OutputLocks() as locks, OutputLocks() as others:
        assert locks.acquire(folder, "a") is None
        owner = others.acquire(folder, "a")
        assert "since" in owner
        assert "if that run is gone, delete .a.lock" in owner
    assert not folder.exists()  # nor is the folder that was made for the lock
    old, new = (tmp := folder.parent) / ".a.npy.1-01234567.part.npy", tmp / ".a.npy.1-89abcdef.part.npy"
    for path in (old, new):
        path.write_text("")
    os.utime(old, (time.time() - 2 * files.STALE_AFTER,) * 2)
    assert list(files.stale_temporaries(tmp, "a.npy")) == [old]


@pytest.mark.parametrize("name", ["001.npy", "002.safetensors"])
def test_a_damaged_segment_is_not_used(tmp_path, name, caplog):
    store = ResumeStore(tmp_path / "a.parts", "hash", {"seed": 1})
    store.folder.mkdir()
    for index in range(3):
        for kind in ("npy", "safetensors"):
            store.file(index, kind).write_bytes(bytes([index]) * 1000)
        store.mark_finished(index, {})
    assert store.num_intact() == 3
    data = bytearray((store.folder / name).read_bytes())
    data[500] ^= 1
    (store.folder / name).write_bytes(data)
    store.check(resume=True, overwrite=False)
    assert store.num_intact() == int(name[2]) - 1
    assert f"{name} is damaged; it and what follows is made again" in caplog.text


@pytest.mark.parametrize(
    "state", ["", "[]", '{"schema": 1}', '{"schema": 1, "finished": "2", "plan_hash": "hash", "seed": 1}']
)
def test_a_damaged_state_is_told(tmp_path, state):
    store = ResumeStore(tmp_path / "a.parts", "hash", {"seed": 1})
    store.folder.mkdir()
    (store.folder / "state.json").write_text(state)
    with pytest.raises(InputError, match=r"its state\.json is damaged; --overwrite begins again"):
        store.check(resume=True, overwrite=False)
    assert store.num_intact() == 0


def test_what_a_killed_run_downloaded_is_swept(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / ".videogen-work.1-0123abcd.part"
    left.mkdir()
    (left / "download-x").write_text("much")
    with files.work_folder() as folder, files.work_folder() as second:
        assert sorted(tmp_path.iterdir()) == sorted([folder, second])
    assert not list(tmp_path.iterdir())
