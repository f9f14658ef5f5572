"""Where workers keep their counts for each other: nothing stays behind, and nothing goes that is still used."""

import fcntl
import os
import tempfile
from pathlib import Path

import pytest

from homeserver.runtime.metrics import workers_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_ends_with_its_block(temporary: Path) -> None:
    with workers_folder() as (folder, _):
        assert list(temporary.iterdir()) == [folder]
        (folder / "counter_1.db").touch()
    assert list(temporary.iterdir()) == []


def test_that_of_a_supervisor_that_was_killed_goes_when_its_workers_have_ended(temporary: Path) -> None:
    left = temporary / "heliograph-metrics-left"
    left.mkdir()
    (left / "counter_1.db").touch()
    (temporary / "heliograph-metrics-file").touch()
    worker = os.open(left, os.O_RDONLY)
    fcntl.flock(worker, fcntl.LOCK_EX)
    with workers_folder() as (one, _), workers_folder() as (another, _):
        assert {left, one, another} < set(temporary.iterdir())
    os.close(worker)
    with workers_folder():
        assert not left.exists()
