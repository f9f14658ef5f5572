"""A homeserver on a fresh database."""

import pytest

from tests.rooms.incoming.homeserver import Homeserver
from tests.rooms.workers import Worker


@pytest.fixture
def homeserver(worker: Worker) -> Homeserver:
    """This server, as far as it takes events of others."""
    return Homeserver(worker)


@pytest.fixture
def other_homeserver(other_worker: Worker, homeserver: Homeserver) -> Homeserver:
    """Another process of it, on the same database."""
    other = Homeserver(other_worker, keys=homeserver.keys, remotes=homeserver.remotes)
    other.worker.clock = homeserver.worker.clock
    return other
