"""Ends of invitations and knocks that other servers tell of, in rooms that this server is not in.

Whether the room allows it cannot be checked. But whoever has invited somebody may take it back, and the servers that
somebody knocked through, or named while doing so, speak for the room as well as anybody that is known here.

https://spec.matrix.org/v1.19/client-server-api/#leaving-rooms
"""

from homeserver.core.errors import Forbidden
from homeserver.core.ids import ServerName, UserId
from homeserver.core.pdu import Pdu
from homeserver.services.rooms.join_candidates import servers_of_membership
from homeserver.services.rooms.out_of_band import OutOfBandMemberships, ServerIsInRoom
from storage.database import Database
from storage.rooms import RoomRow


class RescindedInvites:
    """Takes such events; it satisfies `incoming.OutOfBandMembership`."""

    def __init__(self, *, db: Database, out_of_band: OutOfBandMemberships) -> None:
        self._db = db
        self._out_of_band = out_of_band

    async def receive(self, origin: ServerName, room: RoomRow, pdu: Pdu) -> None:
        """A `leave` or `ban` of a local user, of a room that this server is not in; it has passed the gate.

        Args:
            origin: the server that sends it, whoever has made it.
            room: the room.
            pdu: the event.

        Raises:
            Forbidden: it ends no invitation and no knock of that user, or is of somebody who cannot be trusted with it.
        """
        async with self._db.connection() as conn:
            trusted = await servers_of_membership(conn, room.room_id, UserId.parse(pdu.state_key))
        if pdu.sender.server_name not in trusted:
            raise Forbidden("This server is not in the room")
        try:
            await self._out_of_band.record(pdu)
        except ServerIsInRoom as error:
            raise Forbidden("The event must be sent again") from error
