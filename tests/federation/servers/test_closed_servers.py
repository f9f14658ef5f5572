"""Servers that do not federate at all, or not with everybody."""

from tests.federation.deployment import Deployment
from tests.federation.peer import Peer
from tests.federation.resident import V1
from tests.federation.servers.rooms import try_join


async def test_a_server_that_does_not_federate(deployment: Deployment, peer: Peer) -> None:
    (server,) = await deployment.start(federation={"enabled": False})
    room = peer.create_room(peer.user("bob"))
    async with server.user("alice") as alice:
        assert (await peer.ask(server.name, "GET", f"{V1}/query/profile", user_id=alice.user_id)).status == 404
        assert (await peer.ask(server.name, "GET", "/_matrix/key/v2/server")).status == 404
        answer = await try_join(alice, room.room_id, peer.name)
        assert answer.status in (404, 502)
        assert (await alice.call("GET", f"/profile/{peer.user('bob')}")).status == 404
        room_id = await alice.create_room()
        await alice.send(room_id, "to nobody")
    assert peer.received == []


async def test_a_server_that_federates_with_some(deployment: Deployment, peer: Peer, other_peer: Peer) -> None:
    (server,) = await deployment.start(federation={"allowed_servers": (other_peer.name,)})
    path = f"{V1}/query/profile"
    async with server.user("alice") as alice:
        refused = await peer.ask(server.name, "GET", path, user_id=alice.user_id)
        assert (refused.status, refused.errcode) == (403, "M_FORBIDDEN")
        assert (await other_peer.ask(server.name, "GET", path, user_id=alice.user_id)).status == 200
        other_peer.profiles[other_peer.user("bob")] = {"displayname": "Bob"}
        assert await alice.get(f"/profile/{other_peer.user('bob')}") == {"displayname": "Bob"}
        assert (await alice.call("GET", f"/profile/{peer.user('bob')}")).status == 404
    assert peer.received == []
