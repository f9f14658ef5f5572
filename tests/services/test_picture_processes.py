"""The processes that decode pictures: limits, and what happens when one of them fails."""

import io
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from homeserver.services.media import picture_processes
from homeserver.services.media.picture_processes import NotAPicture, PictureJob, PictureProcesses
from tests.waiting import wait_until


@pytest.fixture
async def processes() -> AsyncIterator[PictureProcesses]:
    """None of them runs yet."""
    async with PictureProcesses(pixels_max=10_000_000) as made:
        yield made


@pytest.fixture
def job(tmp_path: Path) -> PictureJob:
    """A thumbnail of a picture."""
    path = tmp_path / "picture"
    data = io.BytesIO()
    Image.new("RGB", (900, 900), (1, 2, 3)).save(data, "PNG")
    path.write_bytes(data.getvalue())
    return PictureJob(path=path, width=96, height=96, method="scale", animated=False)


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if _decodes_pictures(child)]


def _decodes_pictures(process: psutil.Process) -> bool:
    try:
        return any("picture_worker" in argument for argument in process.cmdline())
    except psutil.NoSuchProcess:  # a zombie too
        return False


async def test_a_process_serves_many_jobs_and_ends_with_its_owner(job: PictureJob) -> None:
    async with PictureProcesses(pixels_max=10_000_000) as processes:
        for _ in range(3):
            assert (await processes.make(job)).content_type == "image/png"
        (child,) = children()
        assert await processes.size(job.path) == (900, 900)
        assert [other.pid for other in children()] == [child.pid]
    assert not children()


async def test_a_process_may_do_little(processes: PictureProcesses, job: PictureJob) -> None:
    """Lesson S32: memory, time and files are limited, and it knows nothing of the server's environment."""
    await processes.make(job)
    (child,) = children()
    limits = (Path("/proc") / str(child.pid) / "limits").read_text()
    sizes = {line[:25].strip(): line[25:].split()[0] for line in limits.splitlines()[1:]}
    assert int(sizes["Max address space"]) <= 1536 * 1024 * 1024
    assert int(sizes["Max cpu time"]) <= 600
    assert sizes["Max file size"] == "0"
    assert set(child.environ()) <= {"PYTHONPATH", "LC_ALL", "LC_CTYPE"}


async def test_a_process_that_dies_is_replaced(processes: PictureProcesses, job: PictureJob) -> None:
    await processes.make(job)
    (child,) = children()
    os.kill(child.pid, signal.SIGKILL)
    await wait_until(lambda: not children())
    assert (await processes.make(job)).data


async def test_a_job_that_takes_too_long_ends_its_process(
    processes: PictureProcesses, job: PictureJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    await processes.make(job)
    (child,) = children()
    os.kill(child.pid, signal.SIGSTOP)
    monkeypatch.setattr(picture_processes, "JOB_SECONDS_MAX", 0.1)
    with pytest.raises(NotAPicture):
        await processes.make(job)
    assert child.pid not in [other.pid for other in children()]
