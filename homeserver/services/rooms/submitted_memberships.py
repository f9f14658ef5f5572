"""Member events that other servers hand in for their users, in rooms that this server is in: joins, leaves, knocks.

What is handed in must be what the path says, the asking server's own, signed by it, and allowed in the room as it is;
then it becomes a part of the room, and this server passes it on to the other servers there. A join that rests on the
right of one of our users to invite gets our signature first.

https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid
"""

from typing import Final, Literal

from homeserver.core.errors import Forbidden, InvalidParam, NotFound
from homeserver.core.event_auth.auth_events import CREATE, JOIN_RULES, POWER_LEVELS, member_slot
from homeserver.core.event_format import parse_pdu
from homeserver.core.hashing import content_hash_matches, reference_hash
from homeserver.core.ids import EventId, RoomId, ServerName
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import RoomVersion
from homeserver.core.signing import SigningKey, sign_event, signature_key_ids
from homeserver.services.remote import EventJson
from homeserver.services.rooms.gate import EventGate
from homeserver.services.rooms.incoming import IncomingEvents
from homeserver.services.rooms.residence import require_resident
from homeserver.services.rooms.restricted_joins import authorise_join
from homeserver.services.rooms.server_access import ServerAccess
from storage.database import Connection, Database
from storage.events import StoredEvent, find_event, list_pdus
from storage.room_heads import find_head

_AUTHORISED_VIA: Final = "join_authorised_via_users_server"


class NotOfOrigin(InvalidParam):
    """The event is not the asking server's own: it lacks that server's signature, or is by a user of another."""


class SubmittedMemberships:
    """Takes in member events that other servers hand in."""

    def __init__(
        self,
        *,
        db: Database,
        gate: EventGate,
        incoming: IncomingEvents,
        access: ServerAccess,
        server_name: ServerName,
        key: SigningKey,
    ) -> None:
        """Takes its means; `key` is what this server signs with."""
        self._db = db
        self._gate = gate
        self._incoming = incoming
        self._access = access
        self._server_name = server_name
        self._key = key

    async def accept(
        self,
        origin: ServerName,
        room_id: RoomId,
        event_id: EventId,
        event: EventJson,
        *,
        membership: Literal["join", "leave", "knock"],
    ) -> StoredEvent:
        """Makes a member event a part of its room. Handed in again, it is found as it was taken in.

        Args:
            origin: the server that hands it in.
            room_id: the room, as the path of the request says.
            event_id: the event, likewise.
            event: the event.
            membership: what it must set.

        Raises:
            NotFound: this server is not in the room.
            NotOfOrigin: it is not the other server's.
            InvalidParam: it is not what it must be, or its hash is wrong.
            BadJson, TooLarge: it is no event of the room's version.
            UnableToAuthoriseJoin, UnableToGrantJoin: see `authorise_join`.
            Forbidden: the room does not allow it, or keeps the other server out.
        """
        async with self._db.connection() as conn:
            room = await require_resident(conn, self._access, origin, room_id)
        pdu = parse_own_event(origin, event, room.room_version, room_id=room_id)
        check_member_event(pdu, event_id, membership)
        if pdu.state_key != pdu.sender:
            raise InvalidParam("state_key and sender must be the same")
        async with self._db.connection() as conn:
            known = await _find_same(conn, pdu)
            if known is not None:
                return known
            signed = await self._authorised(conn, pdu)
        result = await self._gate.check(room.room_version, [signed], room_id=room_id)
        if not result.passed:
            raise NotOfOrigin("The event is not signed as it must be")
        await self._incoming.add(origin, result.passed[0], relay=True)
        async with self._db.connection() as conn:
            added = await find_event(conn, event_id)
        if added is None:
            raise NotFound("The event is gone")
        return added

    async def _authorised(self, conn: Connection, pdu: Pdu) -> EventJson:
        """The event, signed by this server if it is a join by the right of one of our users.

        Only here do we vouch for the conditions of a restricted room: the authorization rules cannot see them.
        """
        vouching = pdu.content.get(_AUTHORISED_VIA) if pdu.membership == "join" else None
        if not pdu.room_version.restricted_join_allowed or not isinstance(vouching, str):
            return pdu.json
        if vouching.partition(":")[2] != self._server_name:
            return pdu.json
        head = await find_head(conn, pdu.room_id, [CREATE, POWER_LEVELS, JOIN_RULES, member_slot(pdu.sender)])
        if head is None:
            raise NotFound("Unknown room")
        await authorise_join(conn, head, pdu.sender, server_name=self._server_name)
        return sign_event(pdu.json, self._server_name, self._key, pdu.room_version)


def parse_own_event(origin: ServerName, event: EventJson, room_version: RoomVersion, *, room_id: RoomId) -> Pdu:
    """Reads an event that another server has made itself and sends for more than storing it.

    Whether the signature is right is not checked; that is the gate's.

    Raises:
        NotOfOrigin: the server has not signed it, or its sender is not a user of that server.
        InvalidParam: the content is not what was hashed.
        BadJson, TooLarge: it is no event of the room version, or belongs to another room.
    """
    if "hashes" not in event or not signature_key_ids(event, origin):
        raise NotOfOrigin(f"The event is not signed by {origin}")
    pdu = parse_pdu(event, room_version, room_id=room_id)
    if pdu.sender.server_name != origin:
        raise NotOfOrigin(f"The sender is not a user of {origin}")
    # Elsewhere such an event is redacted and used; here nobody but its author can have changed it.
    if not content_hash_matches(event):
        raise InvalidParam("The event does not have the hash that it names")
    return pdu


def check_member_event(pdu: Pdu, event_id: EventId, membership: str) -> None:
    """Checks that an event is the member event that a request is about.

    Raises:
        InvalidParam: it is another event, or does something else.
    """
    if pdu.event_id != event_id:
        raise InvalidParam("The event is not the one that the path names")
    if pdu.type != "m.room.member":
        raise InvalidParam("The event is no m.room.member")
    if pdu.membership != membership:
        raise InvalidParam(f"The membership is not {membership}")


async def _find_same(conn: Connection, pdu: Pdu) -> StoredEvent | None:
    """The event, if it is a part of the room already.

    Raises:
        InvalidParam: there is another event of this id (in room versions 1 and 2).
        Forbidden: it was refused before, which is final.
    """
    stored = await find_event(conn, pdu.event_id)
    if stored is None or stored.state_id is None:
        return None
    known = (await list_pdus(conn, [stored.event_nid]))[stored.event_nid]
    if reference_hash(known.json, known.room_version) != reference_hash(pdu.json, pdu.room_version):
        raise InvalidParam("There is another event of this id")
    if not stored.is_accepted:
        raise Forbidden(stored.rejected or "The room does not allow the event")
    return stored
