"""Memberships in rooms that other servers are in (`homeserver.services.remote.RemoteRooms`).

https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from federation.outbound.answer_shapes import (
    events,
    json_object,
    member,
    nonsense,
    read_large,
    server_names,
    template,
)
from federation.outbound.client import FederationClient
from federation.wire.paths import federation_path
from homeserver.core.errors import RemoteRefused
from homeserver.core.ids import RoomId, ServerName, UserId
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import ROOM_VERSIONS, EventIdFormat
from homeserver.services.remote import EventJson, EventTemplate, SentJoin

VERSIONS: Final = tuple(ROOM_VERSIONS)

TEMPLATE_SECONDS: Final = 30.0
SEND_SECONDS: Final = 60.0
JOIN_SECONDS: Final = 300.0
"""A server may have to compute the state of a room of a hundred thousand members first."""
JOIN_BYTES_MAX: Final = 200 * 1024 * 1024
STRIPPED_STATE_MAX: Final = 200
"""How many events of stripped state are looked at."""


class FederationRooms:
    """Every request is one that a user waits for, so servers that have failed before are asked as well."""

    def __init__(self, client: FederationClient) -> None:
        self._client = client

    async def make_join(self, via: ServerName, room_id: RoomId, user_id: UserId) -> EventTemplate:
        """Asks for a join to be signed; all room versions are offered."""
        return await self._make("make_join", via, room_id, user_id, {"ver": VERSIONS})

    async def make_knock(self, via: ServerName, room_id: RoomId, user_id: UserId) -> EventTemplate:
        """Asks for a knock to be signed; all room versions are offered."""
        return await self._make("make_knock", via, room_id, user_id, {"ver": VERSIONS})

    async def make_leave(self, via: ServerName, room_id: RoomId, user_id: UserId) -> EventTemplate:
        """Asks for a leave to be signed."""
        return await self._make("make_leave", via, room_id, user_id, {})

    async def send_join(self, via: ServerName, pdu: Pdu, *, omit_members: bool) -> SentJoin:
        """Hands a signed join in."""
        chunks = self._client.put_streamed(
            via,
            federation_path("v2", "send_join", pdu.room_id, pdu.event_id),
            pdu.json,
            query={"omit_members": "true" if omit_members else "false"},
            timeout_seconds=JOIN_SECONDS,
            bytes_max=JOIN_BYTES_MAX,
            retry_failed=True,
        )
        try:
            answer = await read_large(via, chunks)
        except RemoteRefused as refused:
            if not _is_unrecognized(refused):
                raise
            answer = json_object(via, await self._send_v1("send_join", via, pdu, bytes_max=JOIN_BYTES_MAX))
        event = answer.get("event")
        return SentJoin(
            state=events(via, answer, "state"),
            auth_chain=events(via, answer, "auth_chain"),
            event=event if isinstance(event, dict) else None,
            members_omitted=answer.get("members_omitted") is True,
            servers_in_room=server_names(answer.get("servers_in_room")),
        )

    async def send_leave(self, via: ServerName, pdu: Pdu) -> None:
        """Hands a signed leave in."""
        try:
            await self._put(via, federation_path("v2", "send_leave", pdu.room_id, pdu.event_id), pdu.json)
        except RemoteRefused as refused:
            if not _is_unrecognized(refused):
                raise
            await self._send_v1("send_leave", via, pdu)

    async def send_knock(self, via: ServerName, pdu: Pdu) -> Sequence[EventJson]:
        """Hands a signed knock in; returns `knock_room_state`, stripped state or whole events."""
        answer = await self._put(via, federation_path("v1", "send_knock", pdu.room_id, pdu.event_id), pdu.json)
        return events(via, answer, "knock_room_state", limit=STRIPPED_STATE_MAX)

    async def invite(self, invited: ServerName, pdu: Pdu, *, invite_room_state: Sequence[EventJson]) -> EventJson:
        """Asks the invited user's server to sign an invitation; returns the event with its signature (v2, else v1)."""
        body = {
            "room_version": pdu.room_version.identifier,
            "event": pdu.json,
            "invite_room_state": list(invite_room_state),
        }
        try:
            answer = await self._put(invited, federation_path("v2", "invite", pdu.room_id, pdu.event_id), body)
        except RemoteRefused as refused:
            if not _may_know_only_v1(refused, pdu):
                raise
            unsigned = {**_unsigned(pdu), "invite_room_state": list(invite_room_state)}
            path = federation_path("v1", "invite", pdu.room_id, pdu.event_id)
            answer = _of_v1(invited, await self._put(invited, path, {**pdu.json, "unsigned": unsigned}))
        return json_object(invited, member(invited, answer, "event"))

    async def exchange_third_party_invite(self, via: ServerName, room_id: RoomId, event: EventJson) -> None:
        """Asks the inviting server to make an invitation of a third-party one."""
        await self._put(via, federation_path("v1", "exchange_third_party_invite", room_id), event)

    async def _make(
        self, operation: str, via: ServerName, room_id: RoomId, user_id: UserId, query: Mapping[str, Sequence[str]]
    ) -> EventTemplate:
        answer = await self._client.get(
            via,
            federation_path("v1", operation, room_id, user_id),
            query=query,
            timeout_seconds=TEMPLATE_SECONDS,
            retry_failed=True,
        )
        return template(via, answer)

    async def _put(
        self, via: ServerName, path: str, body: Mapping[str, Any], *, bytes_max: int = 1024 * 1024
    ) -> object:
        answer: object = await self._client.put(
            via, path, body, timeout_seconds=SEND_SECONDS, bytes_max=bytes_max, retry_failed=True
        )
        return answer

    async def _send_v1(self, operation: str, via: ServerName, pdu: Pdu, *, bytes_max: int = 1024 * 1024) -> object:
        path = federation_path("v1", operation, pdu.room_id, pdu.event_id)
        return _of_v1(via, await self._put(via, path, pdu.json, bytes_max=bytes_max))


def _is_unrecognized(refused: RemoteRefused) -> bool:
    """Whether a server does not know an endpoint; old ones say so without an error code."""
    return refused.status in (404, 405) and refused.remote_errcode in ("M_UNRECOGNIZED", "M_UNKNOWN")


def _may_know_only_v1(refused: RemoteRefused, pdu: Pdu) -> bool:
    """Version 1 of the invitation is for room versions 1 and 2 alone."""
    return refused.status in (400, 404) and (pdu.room_version.event_id_format is EventIdFormat.SERVER_ASSIGNED)


def _of_v1(server: ServerName, answer: object) -> object:
    """What version 1 of an endpoint answers: a list of the status, once more, and what is meant."""
    if not isinstance(answer, list) or len(answer) != 2:
        raise nonsense(server)
    content: object = answer[1]
    return content


def _unsigned(pdu: Pdu) -> Mapping[str, Any]:
    unsigned = pdu.json.get("unsigned")
    return unsigned if isinstance(unsigned, dict) else {}
