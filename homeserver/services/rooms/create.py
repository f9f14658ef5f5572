"""Creating rooms.

https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from homeserver.config.schema import DirectoryConfig, RoomsConfig
from homeserver.core.clock import Clock
from homeserver.core.errors import (
    BadJson,
    Forbidden,
    InvalidParam,
    InvalidRoomState,
    MatrixError,
    RoomInUse,
    ThreepidDenied,
    UserSuspended,
)
from homeserver.core.ids import EventId, RoomAlias, RoomId, ServerName, UserId
from homeserver.core.pdu import StateKey
from homeserver.core.requester import Requester
from homeserver.core.room_versions import RoomVersion, room_version_named
from homeserver.services.rooms.append import Appender
from homeserver.services.rooms.content_rules import check_state
from homeserver.services.rooms.member_content import check_invitable, read_profiles
from homeserver.services.rooms.presets import PRIVATE_CHAT, PUBLIC_CHAT, NewRoom, first_events
from storage.aliases import find_alias, insert_alias
from storage.database import Connection, Database
from storage.published_rooms import publish_room

logger = logging.getLogger(__name__)

INVITED_MAX: Final = 1000
INITIAL_STATE_MAX: Final = 1000
_INVITED_AT_ONCE: Final = 4
_INVITING_SECONDS_MAX: Final = 90.0


class Invitations(Protocol):
    """Invites users of other servers (`Memberships`)."""

    async def invite(
        self, requester: Requester, room_id: RoomId, target: UserId, *, content: Mapping[str, Any] | None = None
    ) -> EventId:
        """Invites a user.

        Raises:
            MatrixError: the user's server refuses, or cannot be asked.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomRequest:
    """The parameters of `/createRoom`, checked for their types only.

    Attributes:
        is_public: the public directory shall list the room.
        alias_localpart: `room_alias_name`.
        preset: None to choose it by `is_public`.
        room_version: None for the configured one.
        invites_by_3pid: somebody is to be invited by e-mail address or phone number.
    """

    is_public: bool = False
    alias_localpart: str | None = None
    name: str | None = None
    topic: str | None = None
    invite: Sequence[str] = ()
    invites_by_3pid: bool = False
    room_version: object = None
    creation_content: Mapping[str, Any] = field(default_factory=dict)
    initial_state: Sequence[Mapping[str, Any]] = ()
    preset: str | None = None
    is_direct: bool = False
    power_level_content_override: Mapping[str, Any] = field(default_factory=dict)


class RoomCreation:
    """Creates rooms as clients want them."""

    def __init__(
        self,
        *,
        db: Database,
        appender: Appender,
        clock: Clock,
        server_name: ServerName,
        rooms_config: RoomsConfig,
        directory_config: DirectoryConfig,
        invitations: Invitations,
    ) -> None:
        self._db = db
        self._appender = appender
        self._invitations = invitations
        self._clock = clock
        self._server_name = server_name
        self._rooms_config = rooms_config
        self._directory_config = directory_config

    async def create(self, requester: Requester, request: RoomRequest) -> RoomId:
        """Creates a room with all that is asked for, or nothing.

        Users of other servers are invited when the room is there. Where that fails, the room is there all the same.

        Raises:
            UnsupportedRoomVersion: this server does not know the room version.
            RoomInUse: there is such an alias already.
            InvalidRoomState: the initial state breaks the rules of the room version.
            InvalidParam: an identifier is none, or too much is wanted at once.
            BadJson: the content of an event has a wrong form.
            ThreepidDenied: somebody is to be invited by something else than a user id.
            InviteBlocked: somebody does not want to be invited.
            Forbidden: the user may not list rooms in the directory.
        """
        if requester.is_suspended:
            raise UserSuspended("You cannot do this while your account is suspended")
        if request.invites_by_3pid:
            raise ThreepidDenied("Invitations by e-mail address or phone number are not supported")
        if request.is_public and self._directory_config.publish == "admins" and not requester.is_admin:
            raise Forbidden("You may not list rooms in the directory")
        room = self._checked(requester, request)
        async with self._db.connection() as conn:
            if room.alias is not None and await find_alias(conn, room.alias) is not None:
                raise RoomInUse("The alias is taken")
            await check_invitable(conn, room.invite)
            profiles = await read_profiles(conn, [room.creator, *room.invite])
        drafts = first_events(replace(room, profiles=profiles))

        async def write_directory(conn: Connection, room_id: RoomId) -> None:
            if room.alias is not None:
                is_new = await insert_alias(
                    conn, room.alias, room_id=room_id, creator=room.creator, created_ts=self._clock.now_ms()
                )
                if not is_new:
                    raise RoomInUse("The alias is taken")
            if request.is_public:
                await publish_room(conn, room_id)

        try:
            room_id = await self._appender.create(
                room.room_version,
                drafts,
                along_with=write_directory if room.alias is not None or request.is_public else None,
            )
        except Forbidden as error:
            raise InvalidRoomState(error.message) from error
        if room.invite_elsewhere:
            await self._invite_elsewhere(requester, room_id, room)
        return room_id

    async def _invite_elsewhere(self, requester: Requester, room_id: RoomId, room: NewRoom) -> None:
        """Invites the users of other servers, a few at a time."""
        at_once = asyncio.Semaphore(_INVITED_AT_ONCE)
        content = {"is_direct": True} if room.is_direct else {}

        async def invite(user_id: UserId) -> None:
            async with at_once:
                try:
                    await self._invitations.invite(requester, room_id, user_id, content=content)
                except MatrixError as error:
                    logger.info("%s could not be invited to %s: %s", user_id, room_id, error)

        try:
            async with asyncio.timeout(_INVITING_SECONDS_MAX), asyncio.TaskGroup() as tasks:
                for user_id in room.invite_elsewhere:
                    tasks.create_task(invite(user_id))
        except TimeoutError:
            logger.warning("not all users of other servers could be invited to %s in time", room_id)

    def _checked(self, requester: Requester, request: RoomRequest) -> NewRoom:
        """The room that is asked for, with the defaults in place."""
        wanted_version = (
            self._rooms_config.default_room_version if request.room_version is None else request.room_version
        )
        room_version = room_version_named(wanted_version)
        preset = request.preset or (PUBLIC_CHAT if request.is_public else PRIVATE_CHAT)
        alias = None
        if request.alias_localpart is not None:
            alias = new_alias(request.alias_localpart, self._server_name)
        check_creation_content(request.creation_content, room_version)
        initial_state = [_initial_state_event(event, server_name=self._server_name) for event in request.initial_state]
        if len(request.invite) > INVITED_MAX or len(initial_state) > INITIAL_STATE_MAX:
            raise InvalidParam("Too many users or events for one request")
        check_state(
            "m.room.power_levels", "", request.power_level_content_override, room_id=None, server_name=self._server_name
        )
        invited = dict.fromkeys(UserId.parse(user_id) for user_id in request.invite)
        invited.pop(requester.user_id, None)
        encryption = self._rooms_config.encryption_default
        return NewRoom(
            creator=requester.user_id,
            room_version=room_version,
            preset=preset,
            creation_content=request.creation_content,
            alias=alias,
            initial_state=initial_state,
            power_level_content_override=request.power_level_content_override,
            name=request.name,
            topic=request.topic,
            invite=tuple(user_id for user_id in invited if user_id.server_name == self._server_name),
            invite_elsewhere=tuple(user_id for user_id in invited if user_id.server_name != self._server_name),
            is_direct=request.is_direct,
            encrypted=encryption == "all" or (encryption == "invite" and preset != PUBLIC_CHAT),
        )


def new_alias(localpart: str, server_name: ServerName) -> RoomAlias:
    """The alias of this server with a local part that a user has chosen.

    Raises:
        InvalidParam: it cannot be an alias.
    """
    if not localpart or any(character.isspace() or character in ":#" for character in localpart):
        raise InvalidParam("The local part of an alias is not empty and holds neither white space nor ':' nor '#'")
    return RoomAlias.parse(f"#{localpart}:{server_name}")


def check_creation_content(content: Mapping[str, Any], room_version: RoomVersion) -> None:
    """Checks further members of a create event's content.

    Raises:
        BadJson: `additional_creators` is no list of user ids, or `m.federate` is no boolean.
        InvalidParam: one of them is no user id.
    """
    if not isinstance(content.get("m.federate", True), bool):
        raise BadJson("m.federate must be true or false")
    if room_version.creators_in_control:
        additional = content.get("additional_creators", [])
        if not isinstance(additional, list):
            raise BadJson("additional_creators must be an array")
        for user_id in additional:
            UserId.parse(user_id)


def _initial_state_event(event: Mapping[str, Any], *, server_name: ServerName) -> tuple[StateKey, Mapping[str, Any]]:
    event_type, state_key, content = event["type"], event.get("state_key", ""), event["content"]
    if not isinstance(event_type, str) or not isinstance(state_key, str) or not isinstance(content, dict):
        raise BadJson("An initial state event has a type, a state key and a content")
    check_state(event_type, state_key, content, room_id=None, server_name=server_name)
    return (event_type, state_key), content
