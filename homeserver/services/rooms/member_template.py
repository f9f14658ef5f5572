"""Member events of this server's users in rooms that it is not in, made after the template of a server that is.

The template is never signed as it came. Of it only that is taken which this server cannot know: where the event stands
in the room's graph, by which events it is authorised, and in restricted rooms who vouches.

https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from collections.abc import Mapping
from typing import Any, Final

from homeserver.core.canonical_json import INTEGER_MAX
from homeserver.core.clock import Clock
from homeserver.core.errors import InvalidParam, MatrixError, RemoteUnavailable
from homeserver.core.event_builder import EventBuilder
from homeserver.core.event_format import AUTH_EVENTS_MAX, PREV_EVENTS_MAX
from homeserver.core.ids import EventId, RoomId, ServerName, UserId
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import EventIdFormat
from homeserver.core.signing import SigningKey
from homeserver.services.remote import EventJson, EventTemplate

AUTHORISED_VIA: Final = "join_authorised_via_users_server"
_HASH_LENGTH_MAX: Final = 64


class MemberEvents:
    """Makes member events of this server's users."""

    def __init__(self, *, server_name: ServerName, key: SigningKey, clock: Clock) -> None:
        """Takes what this server signs with."""
        self._server_name = server_name
        self._key = key
        self._clock = clock

    def after_template(
        self, template: EventTemplate, *, room_id: RoomId, user_id: UserId, content: Mapping[str, Any]
    ) -> Pdu:
        """The event that a template proposes, with our own content, hashed and signed.

        Args:
            template: what the other server has answered.
            room_id: the room that was asked about.
            user_id: the user, who is both sender and target.
            content: the content, with `membership`.

        Raises:
            RemoteUnavailable: the template is for something else than what was asked, or is malformed.
        """
        event, version = template.event, template.room_version
        expected = {"type": "m.room.member", "room_id": room_id, "sender": user_id, "state_key": user_id}
        if any(event.get(name) != value for name, value in expected.items()):
            raise RemoteUnavailable("The other server proposed an event of somebody or something else")
        proposed = event.get("content")
        if not isinstance(proposed, Mapping) or proposed.get("membership") != content["membership"]:
            raise RemoteUnavailable("The other server proposed another membership")
        if (room_id.server_name is None) is not version.room_id_is_create_hash:
            raise RemoteUnavailable("The room id does not have the form of the room's version")
        own_content = {name: value for name, value in content.items() if name != AUTHORISED_VIA}
        if content["membership"] == "join" and version.restricted_join_allowed and AUTHORISED_VIA in proposed:
            own_content[AUTHORISED_VIA] = _user(proposed[AUTHORISED_VIA])
        hashes: dict[EventId, str] = {}
        builder = EventBuilder(
            room_version=version,
            room_id=room_id,
            type="m.room.member",
            sender=user_id,
            state_key=user_id,
            content=own_content,
            origin_server_ts=self._clock.now_ms(),
            depth=_depth(event),
            prev_events=_references(event, "prev_events", PREV_EVENTS_MAX, hashes, version.event_id_format),
            auth_events=_references(event, "auth_events", AUTH_EVENTS_MAX, hashes, version.event_id_format),
            reference_hashes=hashes,
        )
        if not builder.prev_events:
            raise RemoteUnavailable("The other server proposed an event without a past")
        return self._build(builder)

    def leave_after(self, member: Pdu, *, content: Mapping[str, Any]) -> Pdu:
        """A leave that follows an invitation or a knock directly, for this server alone: nobody helps to send it."""
        version = member.room_version
        cites = [] if member.event_id in member.auth_events else [member.event_id]
        hashes: dict[EventId, str] = {}
        if version.event_id_format is EventIdFormat.SERVER_ASSIGNED:
            # Nobody will ever check them.
            hashes[member.event_id] = ""
        return self._build(
            EventBuilder(
                room_version=version,
                room_id=member.room_id,
                type="m.room.member",
                sender=UserId.parse(member.state_key),
                state_key=member.state_key,
                content=content,
                origin_server_ts=self._clock.now_ms(),
                depth=min(member.depth + 1, INTEGER_MAX),
                prev_events=[member.event_id],
                auth_events=cites,
                reference_hashes=hashes,
            )
        )

    def _build(self, builder: EventBuilder) -> Pdu:
        return builder.build(server_name=self._server_name, key=self._key)


def _user(value: object) -> UserId:
    try:
        return UserId.parse(value)
    except InvalidParam as error:
        raise RemoteUnavailable("The other server named somebody who is no user") from error


def _depth(event: EventJson) -> int:
    depth = event.get("depth")
    if type(depth) is not int or not 0 < depth <= INTEGER_MAX:
        raise RemoteUnavailable("The other server proposed an event without a proper depth")
    return depth


def _references(
    event: EventJson, name: str, count_max: int, hashes: dict[EventId, str], id_format: EventIdFormat
) -> list[EventId]:
    """The ids in `prev_events` or `auth_events` of a template; their hashes, where there are any, go into `hashes`."""
    references = event.get(name)
    if not isinstance(references, list) or len(references) > count_max:
        raise RemoteUnavailable(f"The other server proposed an event with wrong {name}")
    found = []
    for reference in references:
        value, digest = _pair(reference) if id_format is EventIdFormat.SERVER_ASSIGNED else (reference, "")
        try:
            event_id = EventId.parse(value)
        except MatrixError as error:
            raise RemoteUnavailable(f"The other server proposed an event with wrong {name}") from error
        hashes[event_id] = digest
        found.append(event_id)
    return found


def _pair(reference: object) -> tuple[object, str]:
    """A reference of room versions 1 and 2: an id and its hash, which is empty where there is none.

    COMPAT(Synapse, 1.163): it leaves out the hashes of events that it created together with others.
    """
    if isinstance(reference, list) and len(reference) == 2 and isinstance(reference[1], Mapping):
        digest = reference[1].get("sha256", "")
        if isinstance(digest, str) and len(digest) <= _HASH_LENGTH_MAX:
            return reference[0], digest
    raise RemoteUnavailable("The other server proposed malformed references")
