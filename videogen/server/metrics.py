"""What Prometheus is told of the server."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE

from videogen.engine.outcome import Outcome
from videogen.results.run_summary import seconds_per_step
from videogen.server.store import ENDED, IN_PROGRESS, Store

BUCKETS = (1, 5, 15, 30, 60, 120, 300, 600, 1200, 2400, 4800, 9600)  # seconds

__all__ = ["CONTENT_TYPE", "Metrics"]


class Metrics:
    """The figures of a server, in a registry of its own."""

    def __init__(self, store: Store) -> None:
        self.registry = CollectorRegistry()
        self.videos = Counter(
            "videogen_videos", "Videos that came to an end, by how", ["status"], registry=self.registry
        )
        for status in ENDED:
            self.videos.labels(status)
        self.seconds = Histogram(
            "videogen_video_seconds", "Time that a video takes", buckets=BUCKETS, registry=self.registry
        )
        self.step = Gauge(
            "videogen_step_seconds", "Time of a denoising step of the last video", registry=self.registry
        )
        self.memory = Gauge(
            "videogen_peak_memory_bytes", "Peak of the last video", ["place"], registry=self.registry
        )
        self.requests = Counter(
            "videogen_http_requests", "Answers, by status code", ["code"], registry=self.registry
        )
        queued = Gauge("videogen_queued", "Videos that wait", registry=self.registry)
        queued.set_function(lambda: len(store.queued()))
        making = Gauge("videogen_in_progress", "Videos that are being made", registry=self.registry)
        making.set_function(lambda: sum(job.status == IN_PROGRESS for job in store.all()))

    def count(self, status: str, outcome: Outcome | None = None) -> None:
        """Count a job that came to an end; ``outcome`` is that of its video, if it was begun."""
        self.videos.labels(status).inc()
        if outcome is None or outcome.result is None:
            return
        self.seconds.observe(outcome.seconds)
        record = outcome.result.record
        self.step.set(seconds_per_step(record["step_seconds"]))
        for place, size in record["peak_memory"].items():
            self.memory.labels(place).set(size)

    def answered(self, code: int) -> None:
        """Count an answer."""
        self.requests.labels(str(code)).inc()

    def text(self) -> bytes:
        """Return all figures in Prometheus' format."""
        return generate_latest(self.registry)
