"""The jobs of the page, as HTML; its buttons are requests of the API."""

from collections.abc import Iterable, Sequence
from html import escape

from videogen.results.formatting import format_seconds
from videogen.server.service import Service
from videogen.server.store import COMPLETED, IN_PROGRESS, Job

MOST_SHOWN = 24  # finished videos


def waiting(jobs: Iterable[Job], service: Service) -> str:
    """Return the jobs that wait or are being made, the next first; of many the first."""
    shown = [job for job in jobs if not job.has_ended][::-1]
    if not shown:
        return ""
    cards = [_waiting(job, has_preview=service.preview(job).is_file()) for job in shown[:MOST_SHOWN]]
    return f"<h3>{len(shown)} in the queue</h3><div class='jobs'>{''.join(cards)}</div>"


def ended(jobs: Iterable[Job]) -> str:
    """Return the newest jobs that came to an end."""
    shown: Sequence[Job] = [job for job in jobs if job.has_ended]
    if not shown:
        return ""
    cards = "".join(map(_ended, shown[:MOST_SHOWN]))
    return f"<h3>{len(shown)} done</h3><div class='jobs gallery'>{cards}</div>"


def _waiting(job: Job, *, has_preview: bool) -> str:
    far, stage = "waits", job.stage
    if job.status == IN_PROGRESS:
        far = stage.name if stage else "begins"
        if stage and stage.total:
            far += f" {stage.done} of {stage.total}"
        if stage and stage.seconds_left is not None:
            far += f", {format_seconds(stage.seconds_left)} left"
    # The version makes the browser ask again for a picture that has changed.
    url = f"v1/videos/{job.id}/preview?{job.version}"
    picture = f"<img src='{url}' alt='preview'>" if has_preview else ""
    bar = f"<progress max='100' value='{job.progress}'></progress>"
    return _card(job, f"{picture}{bar}<span>{escape(far)}</span>", _button("Cancel", job, "POST", "/cancel"))


def _ended(job: Job) -> str:
    address = f"v1/videos/{job.id}/content"
    if job.status == COMPLETED:
        poster = f"{address}?variant=thumbnail"
        content = f"<video controls loop preload='none' src='{address}' poster='{poster}'></video>"
    else:
        why = job.error["message"] if job.error else ""
        content = f"<p class='why'>{job.status}{': ' if why else ''}{escape(why)}</p>"
    link = f"<a href='{address}' download>Download</a>" if job.status == COMPLETED else ""
    return _card(job, content, link + _button("Delete", job, "DELETE", ""))


def _card(job: Job, content: str, actions: str) -> str:
    prompt = escape(str(job.request.get("prompt") or job.task))
    about = f"{job.task}, {job.size}, {job.seconds} s, seed {job.request.get('seed')}"
    return (
        f"<article class='job {job.status}' data-id='{job.id}'>{content}<p title='{prompt}'>{prompt}</p>"
        f"<small>{escape(about)}</small><div>{actions}</div></article>"
    )


def _button(text: str, job: Job, method: str, path: str) -> str:
    call = f"this.disabled = true; fetch('v1/videos/{job.id}{path}', {{method: '{method}'}})"
    return f'<button type="button" onclick="{call}">{text}</button>'
