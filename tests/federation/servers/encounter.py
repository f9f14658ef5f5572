"""A server of ours that meets a fake one in a room."""

from dataclasses import dataclass

from homeserver.core.ids import RoomId, UserId
from tests.federation.deployment import Homeserver
from tests.federation.peer import Peer
from tests.federation.peer_room import PeerRoom
from tests.federation.servers.rooms import until_seen
from tests.real_client import Client
from tests.waiting import wait_until


@dataclass(frozen=True, slots=True)
class Encounter:
    """A server of ours with a user, and a peer in one of its rooms."""

    server: Homeserver
    alice: Client
    peer: Peer
    room: PeerRoom

    @property
    def room_id(self) -> RoomId:
        """The room of both."""
        return self.room.room_id

    @property
    def mallory(self) -> UserId:
        """The peer's user in the room."""
        return self.peer.user("mallory")

    async def bodies(self) -> list[str]:
        """The messages that Alice sees."""
        return [event["content"].get("body") for event in await self.alice.history(self.room_id)]

    async def check_well(self) -> None:
        """Events still go both ways."""
        pdu = self.room.say(self.mallory, "sign of life")
        assert await self.peer.send(self.server.name, [pdu]) == {pdu.event_id: {}}
        await until_seen(self.alice, self.room_id, "sign of life")
        event_id = await self.alice.send(self.room_id, "heard")
        await wait_until(lambda: event_id in self.room.events)
