"""A PostgreSQL that loses nothing when it crashes, for tests that make it crash."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from storage.embedded import DURABLE, EmbeddedPostgres
from storage.migrate import migrate
from tests.waiting import wait_until


@dataclass
class DurablePostgres:
    """A cluster of one test's own, with the settings that a server would run it with."""

    folder: Path
    cluster: EmbeddedPostgres
    url: str = ""

    async def start(self) -> None:
        """Starts it; after a crash it recovers first."""
        self.url = await asyncio.to_thread(self.cluster.start)

    async def stop(self) -> None:
        """Stops it as an administrator would: connections are ended."""
        await asyncio.to_thread(self.cluster.stop)

    async def crash(self) -> None:
        """Ends all of its processes without a warning."""
        lines = (self.folder / "postmaster.pid").read_text().splitlines()
        postmaster = int(lines[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        pids = (postmaster, *map(int, children))
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await wait_until(lambda: not any(_works_in(pid, self.folder) for pid in pids))
        # The owner's lock is let go, and taken again by `start`.
        await self.stop()


def _works_in(pid: int, folder: Path) -> bool:
    """Whether a process is there still; one that has ended and was not waited for has no folder."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == folder
    except OSError:
        return False


@pytest.fixture
async def postgres(cluster_folder: Path) -> AsyncIterator[DurablePostgres]:
    """The cluster, running and migrated."""
    settings = {**DURABLE, "shared_buffers": "32MB", "max_connections": "60"}
    durable = DurablePostgres(cluster_folder, EmbeddedPostgres(cluster_folder, settings=settings))
    try:
        await durable.start()
        await migrate(durable.url)
        yield durable
    finally:
        await durable.stop()
