"""Folders and a PostgreSQL for tests that start and kill servers."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.embedded import EmbeddedPostgres
from tests.conftest import FAST


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may pass through; a PostgreSQL that a test leaves running in it is stopped."""
    top = Path(tempfile.mkdtemp(prefix="heliograph-runtime-"))
    yield top
    for running in top.rglob("postmaster.pid"):
        EmbeddedPostgres(running.parent).stop_abandoned()
    shutil.rmtree(top)


@pytest.fixture
def cluster(folder: Path) -> Iterator[EmbeddedPostgres]:
    """A cluster that is not started yet."""
    postgres = EmbeddedPostgres(folder / "postgres", settings=FAST)
    yield postgres
    postgres.stop()
