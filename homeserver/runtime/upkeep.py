"""Builds what keeps the database small besides: background work that belongs to no subject's endpoints."""

from collections.abc import Sequence

from homeserver.runtime.accounts import Means
from homeserver.runtime.application import BackgroundTask
from homeserver.services.rooms.state_collection import StateCollection


def compose_upkeep(means: Means) -> Sequence[BackgroundTask]:
    """The sweeps."""
    return (BackgroundTask("state_collection", StateCollection(db=means.db, clock=means.clock).run),)
