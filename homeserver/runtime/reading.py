"""Builds what reads rooms: their history, their members, the directory; and their endpoints."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from client_api.sections import (
    event_context,
    mutual_rooms,
    notifications,
    public_rooms,
    relations,
    report_content,
    room_directory,
    room_event,
    room_history,
    room_members,
    room_summary,
    spaces,
    threads,
    timestamp_to_event,
)
from homeserver.runtime.accounts import Means
from homeserver.runtime.other_servers import Remotes
from homeserver.runtime.rooms import Rooms
from homeserver.services.rooms.context import EventContexts
from homeserver.services.rooms.directory import RoomDirectory
from homeserver.services.rooms.events_by_time import EventImport, EventsByTime, NoEventImport
from homeserver.services.rooms.hierarchy import SpaceHierarchies
from homeserver.services.rooms.history import Backfill, NoBackfill, RoomHistory
from homeserver.services.rooms.history_reader import HistoryReader
from homeserver.services.rooms.members import RoomMembers
from homeserver.services.rooms.mutual_rooms import MutualRooms
from homeserver.services.rooms.notifications import Notifications
from homeserver.services.rooms.partial_state import PartialStates
from homeserver.services.rooms.public_rooms import PublicRooms
from homeserver.services.rooms.relations import Relations
from homeserver.services.rooms.remote_hierarchies import RemoteHierarchies
from homeserver.services.rooms.reports import Reports
from homeserver.services.rooms.room_summary import RoomSummaries
from homeserver.services.rooms.space_tree import SpaceTrees
from homeserver.services.rooms.threads import Threads
from homeserver.web.endpoint import Section


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What others build upon, and all endpoints."""

    contexts: EventContexts
    directory: RoomDirectory
    events_by_time: EventsByTime
    public_rooms: PublicRooms
    sections: Sequence[Section]


_NO_BACKFILL: Final = NoBackfill()
_NO_EVENT_IMPORT: Final = NoEventImport()


def compose_reading(
    means: Means,
    rooms: Rooms,
    *,
    remotes: Remotes,
    backfill: Backfill = _NO_BACKFILL,
    imports: EventImport = _NO_EVENT_IMPORT,
) -> Reading:
    """Builds the services and their endpoints.

    Args:
        means: what it is made with.
        rooms: the services of rooms.
        remotes: other servers, as they can be asked.
        backfill: fetches history that is missing.
        imports: fetches single events of the past.
    """
    config, db, clock = means.config, means.db, means.clock
    access, renderer, states = rooms.access, rooms.renderer, rooms.states
    reader = HistoryReader(access=access)
    contexts = EventContexts(db=db, access=access, reader=reader, renderer=renderer, states=states)
    history = RoomHistory(db=db, access=access, reader=reader, renderer=renderer, states=states, backfill=backfill)
    events_by_time = EventsByTime(
        db=db,
        access=access,
        server_access=rooms.server_access,
        server_name=config.server_name,
        remote=remotes.events,
        imports=imports,
    )
    directory = RoomDirectory(
        db=db,
        access=access,
        server_access=rooms.server_access,
        clock=clock,
        server_name=config.server_name,
        config=config.directory,
        aliases=rooms.aliases,
        appender=rooms.appender,
    )
    public = PublicRooms(db=db, server_name=config.server_name, remote=remotes.public_rooms)
    return Reading(
        contexts=contexts,
        directory=directory,
        events_by_time=events_by_time,
        public_rooms=public,
        sections=(
            room_history.section(history),
            event_context.section(contexts),
            room_event.section(contexts),
            timestamp_to_event.section(events_by_time),
            relations.section(Relations(db=db, access=access, reader=reader, renderer=renderer)),
            threads.section(Threads(db=db, access=access, renderer=renderer)),
            notifications.section(Notifications(db=db, access=access, renderer=renderer)),
            room_directory.section(directory),
            public_rooms.section(public, directory, config.directory),
            *_about_rooms(means, rooms, directory=directory, remotes=remotes),
        ),
    )


def _about_rooms(means: Means, rooms: Rooms, *, directory: RoomDirectory, remotes: Remotes) -> Sequence[Section]:
    """What is asked about whole rooms: who is in them, how they hang together, and what is wrong with them."""
    db, clock, server_name = means.db, means.clock, means.config.server_name
    hierarchies = RemoteHierarchies(remote=remotes.directories, clock=clock, server_name=server_name)
    members = RoomMembers(
        db=db,
        clock=clock,
        access=rooms.access,
        states=rooms.states,
        texts=rooms.state_texts,
        completeness=PartialStates(db=db, clock=clock),
    )
    return (
        room_members.section(members),
        room_summary.section(RoomSummaries(db=db, directory=directory, remote=hierarchies)),
        spaces.section(SpaceHierarchies(trees=SpaceTrees(db=db, remote=hierarchies), clock=clock)),
        mutual_rooms.section(MutualRooms(db=db)),
        report_content.section(Reports(db=db, access=rooms.access, clock=clock, server_name=server_name)),
    )
