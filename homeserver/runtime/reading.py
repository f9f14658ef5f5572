"""Builds what reads rooms: their history, their members, the directory; and their endpoints."""

from collections.abc import Sequence
from dataclasses import dataclass

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
from homeserver.runtime.rooms import Rooms
from homeserver.services.ports import NoRemotePublicRooms
from homeserver.services.rooms.context import EventContexts
from homeserver.services.rooms.directory import RoomDirectory
from homeserver.services.rooms.hierarchy import SpaceHierarchies
from homeserver.services.rooms.history import RoomHistory
from homeserver.services.rooms.history_reader import HistoryReader
from homeserver.services.rooms.members import RoomMembers
from homeserver.services.rooms.mutual_rooms import MutualRooms
from homeserver.services.rooms.notifications import Notifications
from homeserver.services.rooms.public_rooms import PublicRooms
from homeserver.services.rooms.relations import Relations
from homeserver.services.rooms.reports import Reports
from homeserver.services.rooms.room_summary import RoomSummaries
from homeserver.services.rooms.threads import Threads
from homeserver.web.endpoint import Section


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What others build upon, and all endpoints."""

    contexts: EventContexts
    sections: Sequence[Section]


def compose_reading(means: Means, rooms: Rooms) -> Reading:
    """Builds the services and their endpoints."""
    config, db, clock = means.config, means.db, means.clock
    access, renderer, states = rooms.access, rooms.renderer, rooms.states
    reader = HistoryReader(access=access)
    contexts = EventContexts(db=db, access=access, reader=reader, renderer=renderer, states=states)
    directory = RoomDirectory(
        db=db,
        access=access,
        clock=clock,
        server_name=config.server_name,
        config=config.directory,
        aliases=rooms.aliases,
        appender=rooms.appender,
    )
    public = PublicRooms(db=db, server_name=config.server_name, remote=NoRemotePublicRooms())
    reports = Reports(db=db, access=access, clock=clock, server_name=config.server_name)
    return Reading(
        contexts=contexts,
        sections=(
            room_history.section(RoomHistory(db=db, access=access, reader=reader, renderer=renderer, states=states)),
            event_context.section(contexts),
            room_event.section(contexts),
            timestamp_to_event.section(contexts),
            room_members.section(RoomMembers(db=db, access=access, renderer=renderer, states=states)),
            relations.section(Relations(db=db, access=access, reader=reader, renderer=renderer)),
            threads.section(Threads(db=db, access=access, renderer=renderer)),
            room_directory.section(directory),
            public_rooms.section(public, directory, config.directory),
            room_summary.section(RoomSummaries(db=db, directory=directory)),
            spaces.section(SpaceHierarchies(db=db, clock=clock)),
            mutual_rooms.section(MutualRooms(db=db)),
            report_content.section(reports),
            notifications.section(Notifications(db=db, access=access, renderer=renderer)),
        ),
    )
