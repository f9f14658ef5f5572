"""Builds what reacts to events in rooms by itself: each follows the stream from its own saved position."""

from collections.abc import Sequence

from homeserver.runtime.accounts import Means
from homeserver.runtime.application import BackgroundTask
from homeserver.runtime.rooms import Rooms
from homeserver.services.rooms import profile_updates, state_consequences
from homeserver.services.stream.follower import Follower
from homeserver.services.stream.hub import Hub


def compose_room_followers(means: Means, *, hub: Hub, rooms: Rooms) -> Sequence[BackgroundTask]:
    """The followers, one for each subject."""
    db, clock = means.db, means.clock
    profiles = Follower(
        name=profile_updates.NAME,
        keys=profile_updates.KEYS,
        consumer=rooms.profile_updates,
        db=db,
        hub=hub,
        clock=clock,
    )
    consequences = Follower(
        name=state_consequences.NAME,
        keys=state_consequences.KEYS,
        consumer=rooms.state_consequences,
        db=db,
        hub=hub,
        clock=clock,
    )
    return (BackgroundTask("profile_updates", profiles.run), BackgroundTask("state_consequences", consequences.run))
