"""Builds what fetches the history of rooms from other servers."""

from homeserver.runtime.accounts import Means
from homeserver.runtime.incoming import Incoming
from homeserver.runtime.other_servers import Remotes
from homeserver.runtime.room_writing import RoomWriting
from homeserver.services.rooms.backfill import RoomBackfill
from homeserver.services.rooms.leased_work import LeasedWork
from homeserver.services.rooms.past_states import PastStates
from homeserver.services.rooms.past_taking import PastTaking


def compose_backfill(means: Means, *, writing: RoomWriting, incoming: Incoming, remotes: Remotes) -> RoomBackfill:
    """Builds the service, which must be running (`run`)."""
    db = means.db
    past_states = PastStates(db=db, states=writing.states, resolver=writing.resolver, state_fetch=incoming.state_fetch)
    return RoomBackfill(
        db=db,
        server_name=means.config.server_name,
        remote=remotes.events,
        gate=incoming.gate,
        access=incoming.server_access,
        states=writing.states,
        taking=PastTaking(
            db=db,
            outliers=incoming.outliers,
            placing=incoming.placing,
            states=past_states,
            heads=writing.heads,
        ),
        work=LeasedWork(db=db, clock=means.clock),
    )
