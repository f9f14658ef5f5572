"""Encrypted rooms of people on two servers.

https://spec.matrix.org/v1.19/client-server-api/#messaging-algorithms
"""

import pytest

from tests.clients.encryption.stage import Stage

pytestmark = pytest.mark.seconds_max(180)


async def test_three_users_of_two_servers(stage: Stage) -> None:
    alice, bob = await stage.couple()
    carol = await stage.person(stage.away, "carol")
    room_id = await stage.room_of(alice, bob, carol)
    said = []
    for person in (alice, bob, carol, bob, alice):
        said.append(f"{len(said)} by {person.user_id}")
        await person.send(room_id, said[-1])
        for reader in (alice, bob, carol):
            messages = await reader.until_read(room_id, *said)
            assert messages[-1]["sender"] == person.user_id
    stored = [event for event in await carol.client.history(room_id) if event["sender"] == bob.user_id]
    assert {event["type"] for event in stored} == {"m.room.member", "m.room.encrypted"}


async def test_a_device_that_was_away(stage: Stage) -> None:
    """It has kept its keys, and reads what was said meanwhile."""
    alice, bob = await stage.couple()
    room_id = await stage.room_of(alice, bob)
    await alice.send(room_id, "before")
    await bob.until_read(room_id, "before")
    await bob.close()
    await alice.send(room_id, "meanwhile")
    await alice.call("forgetSession", room_id)
    await alice.send(room_id, "in a new session")
    await bob.open()
    await bob.until_read(room_id, "before", "meanwhile", "in a new session")


async def test_who_leaves_reads_nothing_more(stage: Stage) -> None:
    """Those who stay begin a new session, and who comes later reads from then on."""
    alice, bob = await stage.couple()
    carol = await stage.person(stage.away, "carol")
    room_id = await stage.room_of(alice, bob)
    await alice.send(room_id, "for two")
    await bob.until_read(room_id, "for two")
    await bob.call("leave", room_id)
    await alice.call("untilGone", room_id, bob.user_id)
    await alice.send(room_id, "for one")
    assert len(await alice.call("sessionIds", room_id)) == 2
    await alice.call("invite", room_id, carol.user_id)
    await carol.call("untilInvited", room_id)
    await carol.join(room_id, stage.home.name)
    await alice.until_members(room_id, carol)
    await carol.call("scrollBack", room_id)
    await alice.send(room_id, "for both")
    messages = await carol.until_read(room_id, None, None, "for both")
    assert {message["failure"] for message in messages[:2]} == {"HISTORICAL_MESSAGE_USER_NOT_JOINED"}
