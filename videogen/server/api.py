"""The HTTP interface: the /v1/videos contract of OpenAI's API, events, figures.

What a client gets wrong is answered in that API's error form.
"""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from functools import cache
from typing import Annotated, Literal

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from videogen import __version__
from videogen.errors import InputError, VideoGenError, one_line
from videogen.media import output_formats
from videogen.server import metrics, pictures
from videogen.server.access import error
from videogen.server.requests import LARGEST_UPLOAD, REFERENCE, SOURCE, Upload, data_url, explained
from videogen.server.service import (
    MOST_FILES,
    ConflictError,
    FullError,
    NotFoundError,
    Service,
    public,
)
from videogen.server.store import Job
from videogen.server.worker import described

LARGEST_BODY = 2 * LARGEST_UPLOAD
LARGEST_FIELD = 40_000_000  # bytes, also of JSON; a data: URL is one
MOST_FIELDS = 200
MOST_VALUES = 100_000  # of JSON; commas of prompts are counted too
POLL = 0.2  # seconds between looks at a job whose events are sent
# What the server says itself of a request.
STATUS: tuple[tuple[type[Exception], int], ...] = (
    (NotFoundError, 404),
    (ConflictError, 409),
    (FullError, 429),
)

PLANNERS = 4  # requests that are checked at once; with more, the others wait for the interpreter

router = APIRouter()


def service_of(request: Request) -> Service:
    """Return the service of the application."""
    return request.app.state.service


ServiceOf = Annotated[Service, Depends(service_of)]


def job_of(video_id: str, service: ServiceOf) -> Job:
    """Return the job that the path names."""
    return service.job(video_id)


JobOf = Annotated[Job, Depends(job_of)]


@router.post("/v1/videos")
async def create(request: Request, service: ServiceOf) -> dict[str, object]:
    """Queue a video; JSON, or a form with files."""
    fields, uploads = await _read(request)
    return public(await to_thread.run_sync(service.create, fields, uploads, limiter=_planners()))


@router.get("/v1/videos")
async def listed(
    service: ServiceOf,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: str | None = None,
    order: Literal["asc", "desc"] = "desc",
) -> dict[str, object]:
    """Return the jobs, the newest first, in pages."""
    jobs = service.store.all()
    if order == "desc":
        jobs.reverse()
    if after is not None:
        last = service.job(after).number
        jobs = [job for job in jobs if (job.number < last if order == "desc" else job.number > last)]
    page = [public(job) for job in jobs[:limit]]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return {"object": "list", "data": page, "has_more": len(jobs) > limit, **ends}


@router.get("/v1/videos/{video_id}")
async def retrieve(job: JobOf) -> dict[str, object]:
    """Return a job."""
    return public(job)


@router.delete("/v1/videos/{video_id}")
def delete(job: JobOf, service: ServiceOf) -> dict[str, object]:
    """Delete a job with its files."""
    service.delete(job)
    return {"id": job.id, "object": "video.deleted", "deleted": True}


@router.post("/v1/videos/{video_id}/cancel")
def cancel(job: JobOf, service: ServiceOf) -> dict[str, object]:
    """Cancel a job: at once if it waits, else after the current step."""
    return public(service.worker.cancel(job))


@router.post("/v1/videos/{video_id}/remix")
async def remix(job: JobOf, service: ServiceOf, request: Request) -> dict[str, object]:
    """Queue a job once more with another prompt."""
    fields, _ = await _read(request)
    prompt = str(fields.get("prompt") or "")
    if not prompt or fields.keys() != {"prompt"}:
        raise InputError(SOURCE, "prompt", "a remix takes a prompt and nothing else", "send one")
    return public(await to_thread.run_sync(service.remix, job, prompt, limiter=_planners()))


@router.get("/v1/videos/{video_id}/content")
def content(
    job: JobOf, service: ServiceOf, variant: Literal["video", "thumbnail", "spritesheet"] = "video"
) -> FileResponse:
    """Return the video, its first picture, or a sheet of pictures."""
    video = service.video(job)
    if variant != "video":
        return FileResponse(pictures.VARIANTS[variant](video), content_disposition_type="inline")
    kind = output_formats.MIME_TYPES.get(video.suffix[1:])
    return FileResponse(video, media_type=kind, filename=f"{job.id}{video.suffix}")


@router.get("/v1/videos/{video_id}/preview")
def preview(job: JobOf, service: ServiceOf) -> Response:
    """Return what is predicted of a video that is being made."""
    try:  # whole, because another one may take its place
        content = service.preview(job).read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"{job.id} has no preview") from None
    return Response(content, media_type="image/webp", headers={"Cache-Control": "no-store"})


@router.get("/v1/videos/{video_id}/events", response_class=EventSourceResponse)
async def events(job: JobOf, service: ServiceOf) -> AsyncIterator[ServerSentEvent]:
    """Send the job at every change until it has ended."""
    seen = -1
    while (now := service.store.get(job.id)) is not None and service.worker.is_alive:
        if now.version != seen:
            seen = now.version
            yield ServerSentEvent(data=public(now), event=now.status)
        if now.has_ended:
            return
        await asyncio.sleep(POLL)


@router.get("/v1/models")
async def models(service: ServiceOf) -> dict[str, object]:
    """Return the one model."""
    model = {"id": service.model, "object": "model", "created": 0, "owned_by": "videogen"}
    return {"object": "list", "data": [model]}


@router.api_route("/v1/{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
async def unknown(rest: str, request: Request) -> None:
    """Say that there is no such thing; else the page would answer."""
    raise NotFoundError(f"there is no {request.method} /v1/{rest[:80]}")


@router.get("/healthz")
async def healthz(service: ServiceOf) -> JSONResponse:
    """Say whether videos are made."""
    alive = service.worker.is_alive
    return JSONResponse({"status": "ok" if alive else "the worker ended"}, status_code=200 if alive else 503)


@router.get("/metrics")
async def figures(service: ServiceOf) -> Response:
    """Return the figures in Prometheus' format."""
    return Response(service.metrics.text(), media_type=metrics.CONTENT_TYPE)


def make_app(service: Service) -> FastAPI:
    """Return the application."""
    app = FastAPI(
        title="videogen", version=__version__, docs_url=None, redoc_url=None, max_body_size=LARGEST_BODY
    )
    app.state.service = service
    app.include_router(router)
    app.add_exception_handler(VideoGenError, _refused)
    app.add_exception_handler(HTTPException, _failed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _unexpected)
    return app


@cache
def _planners() -> CapacityLimiter:
    """Return what lets few requests be checked at once; it belongs to the event loop."""
    return CapacityLimiter(PLANNERS)


async def _read(request: Request) -> tuple[dict[str, object], list[Upload]]:
    """Return the fields and the files of a request.

    Raises:
        InputError: neither JSON nor a form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        try:
            fields = json.loads(await _json_body(request) or b"{}")
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise InputError(SOURCE, None, "must be a JSON object or a form", "see docs/server.md")
    else:
        limits = {"max_files": MOST_FILES, "max_fields": MOST_FIELDS, "max_part_size": LARGEST_FIELD}
        form = await request.form(**limits)
        fields = {}
        for name in form:
            values = form.getlist(name)
            fields[name.removesuffix("[]")] = values if len(values) > 1 or name.endswith("[]") else values[0]
    return _with_files(fields)


async def _json_body(request: Request) -> bytes:
    """Return the body of a request that is JSON; nothing else is answered while that is parsed.

    Raises:
        HTTPException: it is too large, or of too many values.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_FIELD:
            raise HTTPException(413, f"JSON of over {LARGEST_FIELD // 1_000_000} MB; send a form with files")
    if sum(map(body.count, b"[{,")) > MOST_VALUES:
        raise HTTPException(413, "JSON of too many values")
    return bytes(body)


def _with_files(fields: dict[str, object]) -> tuple[dict[str, object], list[Upload]]:
    """Return fields without those that are files, and these."""
    plain: dict[str, object] = {}
    uploads: list[Upload] = []
    for name, given in fields.items():
        several = given if isinstance(given, list) else [given]
        sent = [item for item in several if isinstance(item, UploadFile)]
        if sent and len(sent) == len(several):
            uploads += [Upload(name, item.filename or "file", item.file) for item in sent]
        elif name in (REFERENCE, f"{REFERENCE}[image_url]"):
            url = given.get("image_url") if isinstance(given, dict) else given
            uploads.append(Upload(REFERENCE, "data", io.BytesIO(data_url(REFERENCE, url))))
        else:
            plain[name] = given
    return plain, uploads


def _refused(_: Request, failure: Exception) -> JSONResponse:
    """Answer what a request is refused for."""
    assert isinstance(failure, VideoGenError)
    for kind, status in STATUS:
        if isinstance(failure, kind):
            return error(status, one_line(failure))
    return error(400 if isinstance(failure, InputError) else 500, *explained(failure))


def _unexpected(_: Request, failure: Exception) -> JSONResponse:
    return error(500, described(failure)["message"])


def _failed(_: Request, failure: Exception) -> JSONResponse:
    assert isinstance(failure, HTTPException)
    return error(failure.status_code, str(failure.detail))


def _invalid(_: Request, failure: Exception) -> JSONResponse:
    assert isinstance(failure, RequestValidationError)
    first = failure.errors()[0]
    name = str(first["loc"][-1])
    return error(400, f"{name}: {first['msg']}", param=name)
