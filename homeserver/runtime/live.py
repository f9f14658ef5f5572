"""Builds what is live: typing, receipts, presence, and the sync that tells of everything."""

from collections.abc import Sequence
from dataclasses import dataclass

from client_api.sections import old_sync, read_markers, receipts, typing
from client_api.sections import presence as presence_section
from client_api.sync import v3
from homeserver.runtime.accounts import Accounts, Means
from homeserver.runtime.application import BackgroundTask
from homeserver.runtime.push import Push
from homeserver.runtime.reading import Reading
from homeserver.runtime.rooms import Rooms
from homeserver.services.ephemeral.presence import Presence
from homeserver.services.ephemeral.receipts import Receipts
from homeserver.services.ephemeral.typing import Typing
from homeserver.services.rooms.event_stream import EventStream
from homeserver.services.rooms.initial_sync import InitialSync
from homeserver.services.stream.hub import Hub
from homeserver.services.sync.account import AccountSections
from homeserver.services.sync.interests import InterestsOfUsers
from homeserver.services.sync.key_counts import KeyCountsOfDevices
from homeserver.services.sync.longpoll import LongPoll
from homeserver.services.sync.recent import RecentChanges
from homeserver.services.sync.response import SyncResponses
from homeserver.services.sync.room_tails import RoomTails
from homeserver.services.sync.rooms import RoomSections
from homeserver.services.sync.sent_members import SentMembers
from homeserver.services.sync.state import StateSections
from homeserver.services.sync.timeline import Timelines
from homeserver.services.sync.to_device import ToDeviceMessages
from homeserver.services.sync.unread import UnreadInRooms
from homeserver.web.endpoint import Section


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What others build upon, all endpoints, and what runs beside the listeners."""

    typing: Typing
    receipts: Receipts
    presence: Presence
    sections: Sequence[Section]
    background: Sequence[BackgroundTask]


def compose_live(
    means: Means, *, hub: Hub, presence: Presence, accounts: Accounts, rooms: Rooms, reading: Reading, push: Push
) -> Live:
    """Builds the services and their endpoints."""
    db, bus, clock = means.db, means.bus, means.clock
    typing_service = Typing(db=db, bus=bus, clock=clock, presence=presence)
    receipts_service = Receipts(db=db, bus=bus, clock=clock, presence=presence)
    tails, sent_members = RoomTails(), SentMembers()
    recent = RecentChanges(tails=tails)
    interests = InterestsOfUsers(recent=recent)
    responses = SyncResponses(
        db=db,
        recent=recent,
        interests=interests,
        to_device=ToDeviceMessages(recent=recent),
        key_counts=KeyCountsOfDevices(recent=recent),
        rooms=RoomSections(
            timelines=Timelines(access=rooms.access, tails=tails),
            states=StateSections(states=rooms.states, sent_members=sent_members),
            renderer=rooms.renderer,
            stripped_state=rooms.stripped_state,
            unread=UnreadInRooms(counts=push.unread_counts, recent=recent, tails=tails),
        ),
        account=AccountSections(presence=presence, push_rules=push.rules),
        sent_members=sent_members,
    )
    initial_sync = InitialSync(
        db=db, hub=hub, access=rooms.access, renderer=rooms.renderer, states=rooms.states, presence=presence
    )
    event_stream = EventStream(
        db=db, hub=hub, clock=clock, access=rooms.access, renderer=rooms.renderer, presence=presence
    )
    longpoll = LongPoll(hub=hub, clock=clock, interests=interests, responses=responses)
    return Live(
        typing=typing_service,
        receipts=receipts_service,
        presence=presence,
        sections=(
            v3.section(longpoll, accounts.filters, presence, means.config.limits),
            old_sync.section(event_stream, initial_sync, reading.contexts, presence, means.config.limits),
            typing.section(typing_service),
            receipts.section(receipts_service),
            read_markers.section(receipts_service),
            presence_section.section(presence),
        ),
        background=(
            BackgroundTask("presence", presence.run),
            BackgroundTask("typing", typing_service.run),
        ),
    )
