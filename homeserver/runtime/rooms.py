"""Builds what rooms are made of: the services that write and read them, and their endpoints."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from client_api.sections import (
    create_room,
    joined_rooms,
    room_membership,
    room_redaction,
    room_send,
    room_state,
    room_upgrade,
)
from homeserver.core.ids import UserId
from homeserver.runtime.accounts import Means
from homeserver.runtime.incoming import Incoming
from homeserver.runtime.memberships_elsewhere import MembershipsElsewhere
from homeserver.runtime.other_servers import Remotes
from homeserver.runtime.room_writing import RoomWriting
from homeserver.services.rooms.access import RoomAccess
from homeserver.services.rooms.aggregations import Aggregations
from homeserver.services.rooms.alias_lookup import AliasLookup
from homeserver.services.rooms.append import Appender
from homeserver.services.rooms.create import RoomCreation
from homeserver.services.rooms.membership import Memberships
from homeserver.services.rooms.profile_updates import ProfileUpdates
from homeserver.services.rooms.redactions import Redactions
from homeserver.services.rooms.rendering import EventRenderer
from homeserver.services.rooms.send import MessageEvents
from homeserver.services.rooms.server_access import ServerAccess
from homeserver.services.rooms.state import RoomState
from homeserver.services.rooms.state_consequences import StateConsequences
from homeserver.services.rooms.state_texts import StateTexts
from homeserver.services.rooms.stripped_state import StrippedState
from homeserver.services.rooms.succession import RoomRules, RoomSuccession
from homeserver.services.rooms.upgrade import RoomUpgrades
from homeserver.web.endpoint import Section
from storage.events import EventCache
from storage.state import StateStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """The services that others build upon, and all endpoints."""

    access: RoomAccess
    server_access: ServerAccess
    aliases: AliasLookup
    appender: Appender
    memberships: Memberships
    profile_updates: ProfileUpdates
    renderer: EventRenderer
    state_consequences: StateConsequences
    states: StateStore
    state_texts: StateTexts
    stripped_state: StrippedState
    sections: Sequence[Section]


def compose_rooms(
    means: Means,
    *,
    writing: RoomWriting,
    incoming: Incoming,
    elsewhere: MembershipsElsewhere,
    remotes: Remotes,
    room_rules: RoomRules,
    note_activity: Callable[[UserId], None] = lambda _: None,
) -> Rooms:
    """Builds all services of rooms and their endpoints.

    Args:
        means: what it is made with.
        writing: what writes into rooms.
        incoming: what takes events of other servers in.
        elsewhere: what memberships need of other servers.
        remotes: other servers, as they can be asked.
        room_rules: what becomes of push rules when a room is replaced.
        note_activity: is told of each user who sends something.
    """
    config, db = means.config, means.db
    states, appender = writing.states, writing.appender
    access, state_texts = RoomAccess(states=states), StateTexts(states=states)
    aliases = AliasLookup(db=db, clock=means.clock, server_name=config.server_name, remote=remotes.directories)
    succession = RoomSuccession(db=db, bus=means.bus, room_rules=room_rules)
    memberships = Memberships(
        db=db,
        appender=appender,
        server_name=config.server_name,
        succession=succession,
        joins_elsewhere=elsewhere.joins,
        elsewhere=elsewhere.memberships,
        completeness=elsewhere.partial_states,
    )
    redactions = Redactions(db=db, appender=appender, server_name=config.server_name)
    messages = MessageEvents(db=db, appender=appender, redactions=redactions, note_activity=note_activity)
    state = RoomState(
        db=db,
        appender=appender,
        memberships=memberships,
        access=access,
        aliases=aliases,
        states=states,
        texts=state_texts,
        events=EventCache(),
        server_name=config.server_name,
    )
    return Rooms(
        access=access,
        server_access=incoming.server_access,
        aliases=aliases,
        appender=appender,
        memberships=memberships,
        profile_updates=ProfileUpdates(db=db, appender=appender),
        renderer=EventRenderer(clock=means.clock, aggregations=Aggregations(access=access)),
        state_consequences=StateConsequences(db=db, appender=appender, succession=succession),
        states=states,
        state_texts=state_texts,
        stripped_state=StrippedState(states=states),
        sections=(
            create_room.section(_creation(means, appender=appender, memberships=memberships)),
            joined_rooms.section(memberships),
            room_membership.section(memberships, aliases),
            room_send.section(messages),
            room_redaction.section(messages),
            room_state.section(state),
            room_upgrade.section(RoomUpgrades(db=db, appender=appender, succession=succession)),
        ),
    )


def _creation(means: Means, *, appender: Appender, memberships: Memberships) -> RoomCreation:
    config = means.config
    return RoomCreation(
        db=means.db,
        appender=appender,
        clock=means.clock,
        server_name=config.server_name,
        rooms_config=config.rooms,
        directory_config=config.directory,
        invitations=memberships,
    )
