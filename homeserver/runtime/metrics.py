"""`GET /metrics`: what Prometheus collects. With several workers, any of them answers for all."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from homeserver.web.endpoint import Access, Request, Response, Section

FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Where the workers keep their counts for each other; the library reads it when it is imported."""

_PREFIX: Final = "heliograph-metrics-"


def section(publish: Callable[[], None]) -> Section:
    """The endpoint; `publish` brings those metrics of this worker up to date that are written now and then."""
    s = Section("Metrics")

    @s.endpoint("GET", "/metrics", access=Access.PUBLIC)
    async def metrics(_: Request) -> Response:
        """The metrics of this server, in the text format of Prometheus."""
        publish()
        return Response(generate_latest(_registry()), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return s


def _registry() -> CollectorRegistry:
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    return registry


@contextmanager
def workers_folder() -> Iterator[tuple[Path, int]]:
    """A folder for the counts of workers, and a descriptor that they must inherit.

    It is removed at the end. Of a supervisor that was killed it stays behind, and goes when another one starts on the
    machine: it is locked until the last process has ended that has the descriptor.
    """
    _remove_abandoned_folders()
    # It gets its name when it is locked, or somebody else might take it for abandoned.
    unnamed = Path(tempfile.mkdtemp(prefix=f"new-{_PREFIX}"))
    descriptor = os.open(unnamed, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        folder = unnamed.rename(unnamed.with_name(unnamed.name.removeprefix("new-")))
        try:
            yield folder, descriptor
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _remove_abandoned_folders() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # Those that are still used, and those of other users of the machine, stay.
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_uid == os.geteuid():
                    shutil.rmtree(folder)
            finally:
                os.close(descriptor)


def forget_worker(pid: int, folder: Path) -> None:
    """Drops what a worker that has ended said of its present; what it counted stays."""
    mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
