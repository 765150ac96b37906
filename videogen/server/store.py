"""The jobs of the server on disk: a folder each, with a record, what was uploaded for it, and its result.

``job.json`` is written last, and renamed into place at every change of state, so that a kill at any moment
loses no job that was answered for: what was being made is queued again, and a folder without a record is a
request that was never answered.
"""

import json
import logging
import re
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from secrets import token_hex
from typing import Any

from videogen import files
from videogen.errors import InputError

logger = logging.getLogger(__name__)

RECORD = "job.json"
ID = re.compile(r"video_[0-9a-f]{24}")  # of a job, and name of its folder
QUEUED, IN_PROGRESS, COMPLETED, FAILED, CANCELLED = (
    "queued",
    "in_progress",
    "completed",
    "failed",
    "cancelled",
)
ENDED = (COMPLETED, FAILED, CANCELLED)
LARGEST_RECORD = 5_000_000  # bytes
TRIES = 3  # servers that may be killed over one job


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """What goes on with a video at the moment; ``total`` is in ``unit``, 0 where its size is not known.

    ``seconds_left`` is of the whole video, None where that is not known.
    """

    name: str
    about: str
    total: int
    unit: str
    done: int = 0
    seconds_left: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A video that was asked for.

    Args:
        number: its place in the queue; numbers only grow.
        request: what the client asked for by option name, with the seed that was drawn.
        uploads: input option -> names of the files in the job's folder.
        size, seconds: of the video, as the API says them.
        tries: how often it was begun; one that the server's end cut off in good order does not count.
        error: code and message.
        is_unwanted: it was cancelled while it was being made.
        result: name of the video in the job's folder.
        progress: percent; like ``stage`` it is not kept on disk.
        version: grows with every change.
    """

    id: str
    number: int
    created_at: float
    request: Mapping[str, object]
    uploads: Mapping[str, list[str]] = field(default_factory=dict)
    task: str = ""
    model: str = ""
    size: str = ""
    seconds: str = ""
    status: str = QUEUED
    tries: int = 0
    started_at: float | None = None
    completed_at: float | None = None
    error: Mapping[str, str] | None = None
    is_unwanted: bool = False
    result: str = ""
    remixed_from: str | None = None
    progress: int = 0
    stage: Stage | None = None
    version: int = 0

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


IN_MEMORY = ("progress", "stage", "version")


class Store:
    """All jobs. Changes by several threads happen one after the other; reading waits for nobody."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "videos"
        self._jobs: dict[str, Job] = {}
        self._last = 0  # number of the newest job
        self._changed = threading.Condition()
        self._closed = False

    def load(self) -> None:
        """Read the jobs of earlier runs; what was being made waits again, unless cancelled or often killed.

        Raises:
            InputError: the folder cannot be used.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            folders = sorted(path for path in self.folder.iterdir() if ID.fullmatch(path.name))
        except OSError as error:
            what = f"cannot be used ({error.strerror})"
            raise InputError("--output_dir", self.folder.parent, what, "choose another folder") from None
        for folder in folders:
            if not (folder / RECORD).exists():
                files.remove(folder)
            elif (job := _read(folder)) is not None:
                self._jobs[job.id] = _after_restart(job)
        self._last = max((job.number for job in self._jobs.values()), default=0)

    def folder_of(self, job_id: str) -> Path:
        """Return the folder of a job."""
        return self.folder / job_id

    def size_of_uploads(self, job: Job) -> int:
        """Return the bytes of the files that a job has from its client; 0 once it is deleted."""
        folder = self.folder_of(job.id)
        with suppress(OSError):
            return sum((folder / name).stat().st_size for names in job.uploads.values() for name in names)
        return 0

    def new_id(self) -> str:
        """Return the id of a new job, whose folder is made."""
        job_id = f"video_{token_hex(12)}"
        self.folder_of(job_id).mkdir(parents=True)
        return job_id

    def add(self, **about: Any) -> Job:
        """Queue a new job; once this returns it is on disk.

        Raises:
            OSError: it cannot be written.
        """
        with self._changed:
            self._last += 1
            job = Job(number=self._last, created_at=time.time(), **about)
        self._save(job)
        with self._changed:
            self._jobs[job.id] = job
            self._changed.notify_all()
        return job

    def get(self, job_id: str) -> Job | None:
        """Return a job, or None if there is none with this id."""
        return self._jobs.get(job_id)

    def all(self) -> list[Job]:
        """Return all jobs, the oldest first."""
        return sorted(self._jobs.values(), key=lambda job: job.number)

    def queued(self) -> list[Job]:
        """Return the jobs that wait, the next first."""
        return [job for job in self.all() if job.status == QUEUED]

    def change(self, job_id: str, *, only_if: str | None = None, **changes: Any) -> Job | None:
        """Change a job; None if it is gone, or its status is not ``only_if``.

        Where the change cannot be kept on disk, a warning is all: other jobs can still be made.
        """
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None or only_if not in (None, job.status):
                return None
            job = self._jobs[job_id] = replace(job, version=job.version + 1, **changes)
            if not changes.keys() <= {*IN_MEMORY}:
                try:
                    self._save(job)
                except OSError as error:
                    what = "its state is lost at the next start"
                    logger.warning("%s: %s (%s)", job_id, what, error.strerror or error)
            return job

    def remove(self, job_id: str) -> bool:
        """Delete a job with all its files; False if it is being made."""
        with self._changed:
            job = self._jobs.get(job_id)
            if job is not None and job.status == IN_PROGRESS:
                return False
            self._jobs.pop(job_id, None)  # it may have been deleted meanwhile
            folder = self.folder_of(job_id)
            files.remove(folder / RECORD)  # so that a kill leaves what is removed at the next start
        files.remove(folder)
        return True

    def take(self) -> Job | None:
        """Wait for a job, mark it as being made and return it; None once the store is closed."""
        with self._changed:
            while not self._closed:
                if waiting := self.queued():
                    job, now = waiting[0], time.time()
                    return self.change(job.id, status=IN_PROGRESS, started_at=now, tries=job.tries + 1)
                self._changed.wait()
            return None

    def close(self) -> None:
        """Let ``take`` return nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _save(self, job: Job) -> None:
        kept = {name: value for name, value in asdict(job).items() if name not in IN_MEMORY}
        (folder := self.folder_of(job.id)).stat()  # one that was deleted by hand is not made again
        files.write_json(folder / RECORD, kept)


def _after_restart(job: Job) -> Job:
    """Return a job as it is when the server that made it has ended."""
    if job.status != IN_PROGRESS:
        return job
    if job.is_unwanted:
        return replace(job, status=CANCELLED, completed_at=time.time())
    if job.tries < TRIES:
        return replace(job, status=QUEUED)
    why = f"the server was killed {TRIES} times while it made it, perhaps for want of memory"
    error = {"code": "server_error", "message": why}
    return replace(job, status=FAILED, error=error, completed_at=time.time())


def _read(folder: Path) -> Job | None:
    """Return the job of a folder; None, with a warning, if its record cannot be read."""
    try:
        content = json.loads(files.read_text(folder / RECORD, LARGEST_RECORD))
        known = {field.name for field in fields(Job)}
        job = Job(**{name: value for name, value in content.items() if name in known})
        if job.id != folder.name:
            raise ValueError("is of another job")
    except (ValueError, TypeError, AttributeError) as error:
        logger.warning("%s is left alone: its %s cannot be used (%s)", folder, RECORD, error)
        return None
    return job
