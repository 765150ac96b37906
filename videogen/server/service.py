"""What the server does for its clients, whether they come through the API or the page."""

import json
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import SEEK_END
from pathlib import Path

from videogen import files
from videogen.errors import InputError, VideoGenError
from videogen.planning.plan import Outline
from videogen.results.formatting import format_bytes
from videogen.results.output_paths import PREVIEW
from videogen.server.metrics import Metrics
from videogen.server.requests import (
    KINDS,
    REFERENCE,
    SOURCE,
    VIDEO,
    Planner,
    Upload,
    input_for,
    keep,
    kind_of,
    option_values,
)
from videogen.server.store import COMPLETED, Job, Store
from videogen.server.worker import Worker
from videogen.tasks.option_types import DRAWN_SEEDS
from videogen.tasks.options import OPTIONS

MOST_QUEUED = 1000  # jobs that wait
MOST_FILES = 8  # of a request
MOST_BYTES = 10_000_000_000  # of the files of all jobs that wait
LEAST_FREE = 1_000_000_000  # bytes that files of requests leave free on the disk
MOST_PLANS = 100  # that are known


class NotFoundError(VideoGenError):
    """There is no such job, or no such file of it."""


class ConflictError(VideoGenError):
    """The state of a job does not allow it."""


class FullError(VideoGenError):
    """Too many jobs wait, or files of them."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """The store, the worker and the figures of a server."""

    store: Store
    worker: Worker
    planner: Planner
    metrics: Metrics
    model: str
    _plans: dict[str, Outline] = field(default_factory=dict, init=False)

    def create(self, fields: Mapping[str, object], uploads: Sequence[Upload] = ()) -> Job:
        """Queue the job of a request; everything about it is checked first.

        Raises:
            InputError, CheckpointError: what will not work.
            FullError: too many jobs wait, or files of them.
        """
        wanted = dict(fields)
        asked = wanted.pop("model", None)
        if asked not in (None, "", self.model):
            raise InputError(SOURCE, f"model {asked}", f"this server has {self.model}", "leave it out")
        if len(uploads) > MOST_FILES:
            raise InputError(SOURCE, f"({len(uploads)} files)", f"at most {MOST_FILES}", "send fewer")
        request = option_values(wanted)
        size = sum(upload.file.seek(0, SEEK_END) for upload in uploads)
        with self._new_folder(size) as folder:
            return self._add(folder, request, self._keep(request, uploads, folder))

    def plan(self, fields: Mapping[str, object], uploads: Sequence[Upload] = ()) -> Outline:
        """Return what a request would come to.

        Raises:
            InputError, CheckpointError: what will not work.
        """
        request = option_values(fields)
        with files.work_folder() as folder:
            return self.planner.plan(request, self._keep(request, uploads, folder), folder)

    def remix(self, job: Job, prompt: str) -> Job:
        """Queue the job once more with another prompt, the same seed and the same files.

        Raises:
            InputError, CheckpointError, FullError: as ``create``.
        """
        request = {**job.request, **option_values({"prompt": prompt})}
        with self._new_folder(self.store.size_of_uploads(job)) as folder:
            for name in (name for names in job.uploads.values() for name in names):
                shutil.copyfile(self.store.folder_of(job.id) / name, folder / name)
            return self._add(folder, request, job.uploads, remixed_from=job.id)

    def job(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            NotFoundError: there is none.
        """
        job = self.store.get(job_id)
        if job is None:
            raise NotFoundError(f"there is no video {job_id[:80]!r}")
        return job

    def delete(self, job: Job) -> None:
        """Delete a job with its files.

        Raises:
            ConflictError: it is being made.
        """
        if not self.store.remove(job.id):
            raise ConflictError(f"{job.id} is being made; cancel it first")

    def video(self, job: Job) -> Path:
        """Return the path of a finished video.

        Raises:
            NotFoundError: it is not finished, or its file is gone.
        """
        path = self.store.folder_of(job.id) / job.result
        if job.status != COMPLETED or not path.is_file():
            why = "its file is gone" if job.status == COMPLETED else f"it is {job.status}"
            raise NotFoundError(f"{job.id} has no video: {why}")
        return path

    def preview(self, job: Job) -> Path:
        """Return the path of the preview of a video, which is there while it is being made."""
        return self.store.folder_of(job.id) / f"{Path(VIDEO).stem}{PREVIEW}"

    @contextmanager
    def _new_folder(self, size: int) -> Iterator[Path]:
        """Yield the folder of a new job, for files of a size; it is removed if the block fails.

        Raises:
            FullError: too many jobs wait, or files of them.
        """
        waiting = self.store.queued()
        if len(waiting) >= MOST_QUEUED:
            raise FullError(f"{MOST_QUEUED} videos wait already; try again later")
        if size and size + sum(map(self.store.size_of_uploads, waiting)) > MOST_BYTES:
            what = f"the files of all videos that wait would take over {format_bytes(MOST_BYTES)}"
            raise FullError(f"{what}; try again later, or send smaller files")
        if size and files.free_bytes(self.store.folder) - size < LEAST_FREE:
            raise FullError("the server's disk has no room for these files; try again later")
        folder = self.store.folder_of(self.store.new_id())
        try:
            yield folder
        except BaseException:
            files.remove(folder)
            raise

    def _keep(
        self, request: Mapping[str, object], uploads: Sequence[Upload], folder: Path
    ) -> dict[str, list[str]]:
        """Write uploads to a folder; returns their names there by input."""
        named: dict[str, list[str]] = {}
        known = request.get("task_type") or self.planner.defaults.get("task_type")
        for number, upload in enumerate(uploads):
            name = upload.field.removesuffix("[]")
            if name not in KINDS and name != REFERENCE:
                what = f"is a file; files are {', '.join([REFERENCE, *KINDS])}"
                raise InputError(SOURCE, name, what, f"send it as {REFERENCE}")
            kept = keep(upload, name, number, folder)
            if name == REFERENCE:
                name = input_for(kind_of(upload.name, folder / kept), str(known) if known else None)
            named.setdefault(name, []).append(kept)
        return named

    def _add(
        self,
        folder: Path,
        request: Mapping[str, object],
        uploads: Mapping[str, list[str]],
        remixed_from: str | None = None,
    ) -> Job:
        """Check a request and queue it, with its seed."""
        plan, seed = self._checked(request, uploads, folder)
        shape = plan.shape
        return self.store.add(
            id=folder.name,
            request={**request, "seed": seed},
            uploads=uploads,
            task=plan.task.name,
            model=self.model,
            size=f"{shape.width}x{shape.height}",
            seconds=f"{round(shape.num_frames / shape.fps, 1):g}",
            remixed_from=remixed_from,
        )

    def _checked(
        self, request: Mapping[str, object], uploads: Mapping[str, list[str]], folder: Path
    ) -> tuple[Outline, int]:
        """Return the plan of a request, and its seed.

        Requests that differ in prompt and seed alone come to the same plan, which is made once: it reads the
        headers of all files of the model. The worker plans every job anew.
        """
        seeds = OPTIONS["seed"].value(request["seed"]) if "seed" in request else None
        others = {name: value for name, value in request.items() if name not in ("prompt", "seed")}
        key = json.dumps([others, bool(request.get("prompt")), seeds is None], sort_keys=True)
        plan = self._plans.get(key) if not uploads and (seeds is None or len(seeds) < 2) else None
        if plan is None:
            plan = self.planner.plan(request, uploads, folder)
            if not uploads:
                if len(self._plans) >= MOST_PLANS:
                    self._plans.clear()
                self._plans[key] = plan
            return plan, plan.seed
        chosen = plan.options.seed if seeds is None else seeds
        return plan, chosen[0] if chosen else secrets.randbelow(DRAWN_SEEDS)


def public(job: Job) -> dict[str, object]:
    """Return a job as the API shows it."""
    prompt = job.request.get("prompt")
    return {
        "id": job.id,
        "object": "video",
        "model": job.model,
        "status": job.status,
        "progress": 100 if job.status == COMPLETED else job.progress,
        "created_at": int(job.created_at),
        "completed_at": None if job.completed_at is None else int(job.completed_at),
        "expires_at": None,
        "prompt": prompt,
        "size": job.size,
        "seconds": job.seconds,
        "seed": job.request.get("seed"),
        "task_type": job.task,
        "stage": None if job.stage is None else asdict(job.stage),
        "error": job.error,
        "remixed_from_video_id": job.remixed_from,
    }
