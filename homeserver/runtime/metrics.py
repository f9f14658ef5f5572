"""`GET /metrics`: what Prometheus collects. With several workers, any of them answers for all."""

import os
from pathlib import Path
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from homeserver.web.endpoint import Access, Request, Response, Section

FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Where the workers keep their counts for each other; the library reads it when it is imported."""


def section() -> Section:
    """The endpoint."""
    s = Section("Metrics")

    @s.endpoint("GET", "/metrics", access=Access.PUBLIC)
    async def metrics(_: Request) -> Response:
        """The metrics of this server, in the text format of Prometheus."""
        return Response(generate_latest(_registry()), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return s


def _registry() -> CollectorRegistry:
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    return registry


def forget_worker(pid: int, folder: Path) -> None:
    """Drops what a worker that has ended said of its present; what it counted stays."""
    mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
