"""Count requests, jobs and frames for Prometheus. No label holds a name, a path or an id."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ..store import count_jobs

if TYPE_CHECKING:
    from .workstation import Workstation

__all__ = ["Metrics"]

_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """The metrics of one workstation, in a registry of its own."""

    def __init__(self, workstation: Workstation) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "capsule_edge_requests",
            "Requests by method, route and status",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "capsule_edge_request_seconds",
            "Seconds until a request was answered, by route",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.registry.register(_State(workstation))

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request.

        Args:
            method: of HTTP.
            route: the template of the route, such as ``/v1/studies/{study_id}``.
            status: of the answer; 0 where the client went away first.
            seconds: until the answer was sent.
        """
        known = method if method in ("GET", "POST", "PUT", "PATCH", "DELETE") else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self.registry)


class _State(Collector):
    """Metrics that are read when they are asked for."""

    def __init__(self, workstation: Workstation) -> None:
        self._workstation = workstation

    def describe(self) -> Iterator[GaugeMetricFamily]:
        # Without this, registering would call ``collect``, before the database is there.
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield jobs by state, frames of the results, and open event streams."""
        station = self._workstation
        with station.database.reading() as connection:
            counts = count_jobs(connection)
        jobs = GaugeMetricFamily("capsule_edge_jobs", "Jobs by state", labels=["state"])
        for state in ("queued", "running", "done", "failed", "cancelled"):
            jobs.add_metric([state], counts.get(state, 0))
        yield jobs
        yield GaugeMetricFamily(
            "capsule_edge_frames_read", "Frames read since the start", value=station.queue.frames_read
        )
        yield GaugeMetricFamily("capsule_edge_event_streams", "Open event streams", value=station.hub.clients)
