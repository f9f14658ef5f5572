"""Requests that are none: unknown paths, wrong methods, bodies that are not JSON.

https://spec.matrix.org/v1.19/client-server-api/#standard-error-response
"""

from synapse_compat_tests.recording import Stage
from synapse_compat_tests.scenarios.registry import scenario


@scenario
async def unknown_endpoints(stage: Stage) -> None:
    """What there is not."""
    alice = await stage.user("alice")
    for client in (alice, stage.anybody()):
        await client.get("/unheard_of")
        await client.get("/_matrix/client/v99/sync")
        await client.get("/_matrix/unheard_of")
        await client.post("/account/whoami")
        await client.delete("/sync")
        await client.put("/login", {})


@scenario
async def malformed_bodies(stage: Stage) -> None:
    """Bodies that are not JSON, or not an object."""
    alice = await stage.user("alice")
    room = await alice.create_room()
    places = (
        ("POST", "/createRoom"),
        ("PUT", room.state_path("m.room.topic")),
        ("PUT", f"/profile/{alice.user_id}/displayname"),
        ("PUT", f"/user/{alice.user_id}/account_data/org.example.x"),
        ("POST", f"/user/{alice.user_id}/filter"),
        ("POST", f"{room.path}/invite"),
        ("PUT", "/devices/ALICE"),
        ("PUT", "/pushrules/global/override/mine"),
    )
    for method, path in places:
        for body in (b"", b"nonsense", b"[]", b"5", b'"text"', b"null", b'{"x": "\xff"}', b'{"a": 1'):
            await alice.call(method, path, body)


@scenario
async def other_users_things(stage: Stage) -> None:
    """What belongs to somebody else."""
    alice, bob = await stage.users("alice", "bob")
    room = await alice.create_room()
    await bob.get(f"/user/{alice.user_id}/filter/0")
    await bob.post(f"/user/{alice.user_id}/filter", {})
    await bob.get(f"/user/{alice.user_id}/account_data/m.direct")
    await bob.put(f"/user/{alice.user_id}{room.path}/account_data/m.x", {})
    await bob.put(f"/user/{alice.user_id}{room.path}/tags/u.x", {})
    await bob.put(f"/profile/{alice.user_id}/avatar_url", {"avatar_url": "mxc://test/x"})
    await bob.put(f"{room.path}/typing/{alice.user_id}", {"typing": True})
