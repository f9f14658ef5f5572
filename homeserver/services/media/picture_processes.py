"""The processes that decode pictures (`picture_worker.py`), few and replaced when they fail.

A job that takes too long costs the process its life. One without work ends after a while.
"""

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from homeserver.core.errors import MatrixError, TooLarge, UnavailableForNow

PROCESSES_MAX: Final = 2
"""How many a worker of the server has."""
JOB_SECONDS_MAX: Final = 20.0
JOBS_WAITING_MAX: Final = 200
JOBS_PER_PROCESS_MAX: Final = 500
"""Then it is replaced, whatever it has gathered."""
THUMBNAIL_BYTES_MAX: Final = 16 * 1024 * 1024
START_SECONDS_MAX: Final = 30.0

_MODULE: Final = "homeserver.services.media.picture_worker"
_LINE_BYTES_MAX: Final = 65_536


class NotAPicture(MatrixError):
    """There are no thumbnails of this: it is no picture, of another format, or broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureJob:
    """A thumbnail to be made; pixels, `method` is `scale` or `crop`."""

    path: Path
    width: int
    height: int
    method: str
    animated: bool


@dataclass(frozen=True, slots=True)
class MadePicture:
    """A thumbnail; `data` is None if the file itself is what was wanted."""

    content_type: str
    data: bytes | None


@dataclass(slots=True)
class _Running:
    process: Process
    jobs: int = 0


class PictureProcesses:
    """Use as `async with PictureProcesses(...) as processes:`; processes start when there is work."""

    def __init__(self, *, pixels_max: int) -> None:
        """Takes the largest picture that is decoded, in pixels."""
        self._pixels_max = pixels_max
        self._idle: list[_Running] = []
        self._turns = asyncio.Semaphore(PROCESSES_MAX)
        self._waiting = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        idle, self._idle = self._idle, []
        for running in idle:
            await _end(running.process)

    async def make(self, job: PictureJob) -> MadePicture:
        """Makes a thumbnail.

        Raises:
            NotAPicture: there is none of this file.
            TooLarge: it has too many pixels.
            UnavailableForNow: too many wait already.
        """
        head, data = await self._run(
            {
                "path": str(job.path),
                "method": job.method,
                "width": job.width,
                "height": job.height,
                "animated": job.animated,
                "pixels_max": self._pixels_max,
            }
        )
        return MadePicture(head["type"], None if head["outcome"] == "original" else data)

    async def size(self, path: Path) -> tuple[int, int]:
        """The width and height of a picture, as it is shown; raises as `make`."""
        job = {"path": str(path), "method": "size", "pixels_max": self._pixels_max}
        head, _ = await self._run(job)
        return head["width"], head["height"]

    async def _run(self, job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        if self._waiting >= JOBS_WAITING_MAX:
            raise UnavailableForNow("Too many thumbnails are being made")
        self._waiting += 1
        try:
            async with self._turns:
                head, data = await self._run_in_process(job)
        finally:
            self._waiting -= 1
        match head["outcome"]:
            case "too_large":
                raise TooLarge("The picture is too large to make thumbnails of it")
            case "unreadable":
                raise NotAPicture("Cannot generate thumbnails for the requested content")
            case _:
                return head, data

    async def _run_in_process(self, job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Runs a job; where an idle process turns out to have ended meanwhile, in a new one."""
        idle = self._take_idle()
        outcome = None if idle is None else await self._try(idle, job)
        if outcome is None:
            outcome = await self._try(_Running(await _start()), job)
        return outcome or ({"outcome": "unreadable"}, b"")

    async def _try(self, running: _Running, job: dict[str, Any]) -> tuple[dict[str, Any], bytes] | None:
        """Runs a job in a process, which is idle again if it has done it, and is ended in every other case.

        Returns None if the process has ended by itself.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(_end, running.process)
            try:
                async with asyncio.timeout(JOB_SECONDS_MAX):
                    head, data = await _exchange(running.process, job)
            except (TimeoutError, ValueError):
                return {"outcome": "unreadable"}, b""
            except (OSError, asyncio.IncompleteReadError):
                return None
            running.jobs += 1
            if running.jobs < JOBS_PER_PROCESS_MAX:
                stack.pop_all()
                self._idle.append(running)
        return head, data

    def _take_idle(self) -> _Running | None:
        """An idle process that still runs, if there is one."""
        while self._idle:
            running = self._idle.pop()
            if running.process.returncode is None:
                return running
        return None


async def _exchange(process: Process, job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    assert process.stdin is not None and process.stdout is not None, "both are pipes"  # noqa: PT018
    process.stdin.write(json.dumps(job).encode() + b"\n")
    await process.stdin.drain()
    head = json.loads(await process.stdout.readuntil(b"\n"))
    if not 0 <= head["bytes"] <= THUMBNAIL_BYTES_MAX:
        raise ValueError("The thumbnail is too large")
    return head, await process.stdout.readexactly(head["bytes"])


async def _start() -> Process:
    # -I and -S would be stricter, but Pillow lies where the interpreter finds it by its usual paths.
    async with asyncio.timeout(START_SECONDS_MAX):
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            _MODULE,
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env={"PYTHONPATH": str(Path(__file__).parents[3]), "LC_ALL": "C.UTF-8"},
            cwd="/",
            limit=_LINE_BYTES_MAX,
            start_new_session=True,
        )


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
