"""Builds what other servers may read here: events, states and history, profiles, aliases, lists of rooms, spaces."""

from collections.abc import Sequence

from federation.inbound import backfill, event_auth, events, openid, public_rooms, query, spaces
from homeserver.runtime.accounts import Accounts, Means
from homeserver.runtime.reading import Reading
from homeserver.runtime.rooms import Rooms
from homeserver.services.rooms.served_events import ServedEvents
from homeserver.services.rooms.served_hierarchy import ServedHierarchies
from homeserver.services.rooms.served_history import ServedHistory
from homeserver.web.endpoint import Section


def compose_served_reading(means: Means, *, accounts: Accounts, rooms: Rooms, reading: Reading) -> Sequence[Section]:
    """Builds the services and their endpoints."""
    config, db, clock = means.config, means.db, means.clock
    served = ServedEvents(db=db, access=rooms.server_access, states=rooms.states)
    history = ServedHistory(db=db, access=rooms.server_access)
    return (
        events.section(served, reading.events_by_time, clock=clock, server_name=config.server_name),
        event_auth.section(served),
        backfill.section(history, clock=clock, server_name=config.server_name),
        query.section(accounts.profiles, reading.directory),
        public_rooms.section(reading.public_rooms, config.directory),
        spaces.section(ServedHierarchies(db=db)),
        openid.section(accounts.openid),
    )
