"""The list of notifications.

https://spec.matrix.org/v1.19/client-server-api/#listing-notifications
"""

from typing import Any

import pytest

from tests.api.push.api import User, encoded, in_thread

Listed = list[tuple[str, bool]]


async def listed(user: User, **query: Any) -> Listed:
    """The events on all pages, and whether they have been read."""
    found: Listed = []
    while True:
        page = await user.ok("GET", "/notifications", **query)
        assert len(page["notifications"]) <= query.get("limit", 20)
        found += [(each["event"]["event_id"], each["read"]) for each in page["notifications"]]
        if "next_token" not in page:
            return found
        query["from"] = page["next_token"]


async def test_a_notification(alice: User, bob: User) -> None:
    room_id = await alice.create_room(bob)
    event_id = await alice.send(room_id, body="tea?")
    (notification,) = (await bob.ok("GET", "/notifications"))["notifications"]
    event = notification.pop("event")
    assert (event["event_id"], event["content"]["body"], event["sender"]) == (event_id, "tea?", alice.user_id)
    assert notification == {
        "actions": ["notify", {"set_tweak": "sound", "value": "default"}],
        "profile_tag": "",
        "read": False,
        "room_id": room_id,
        "ts": event["origin_server_ts"],
    }
    assert (await alice.ok("GET", "/notifications"))["notifications"] == []


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_paging_through_several_rooms(alice: User, bob: User, limit: int) -> None:
    rooms = [await alice.create_room(bob) for _ in range(3)]
    sent = [await alice.send(rooms[number % 3]) for number in range(7)]
    assert await listed(bob, limit=limit) == [(event_id, False) for event_id in reversed(sent)]


async def test_rules_mentions_and_reading(alice: User, bob: User, carol: User) -> None:
    room_id, muted_id = await alice.create_room(bob, carol), await alice.create_room(bob, carol)
    await bob.put_rule("room", muted_id)
    mention = {"m.mentions": {"user_ids": [bob.user_id]}}
    first = await alice.send(room_id)
    await alice.send(muted_id)
    mentioned = await alice.send(muted_id, **mention)
    everybody = await alice.send(room_id, **{"m.mentions": {"room": True}})
    threaded = await alice.send(room_id, **in_thread(first), **mention)
    gone = await alice.send(room_id, **mention)
    await alice.redact(room_id, gone)
    await bob.read(room_id, everybody, thread_id="main")
    everything = [(threaded, False), (everybody, True), (mentioned, False), (first, True)]
    assert await listed(bob) == everything
    assert await listed(bob, only="highlight", limit=1) == everything[:3]
    assert await listed(carol, only="highlight") == [(everybody, False)]
    await bob.send(muted_id)
    assert (mentioned, True) in await listed(bob)
    await bob.ignore(alice)
    assert await listed(bob) == []


async def test_invitations_are_notifications(alice: User, bob: User) -> None:
    room_id = await alice.create_room(invite=[bob.user_id])
    (notification,) = (await bob.ok("GET", "/notifications"))["notifications"]
    assert (notification["room_id"], notification["event"]["type"]) == (room_id, "m.room.member")
    assert notification["event"]["state_key"] == bob.user_id


async def test_what_came_before_joining_and_after_leaving_is_not_listed(alice: User, bob: User) -> None:
    room_id = await alice.create_room()
    await alice.send(room_id)
    await bob.join(room_id)
    heard = await alice.send(room_id, **{"m.mentions": {"user_ids": [bob.user_id]}})
    await bob.ok("POST", f"/rooms/{encoded(room_id)}/leave", {})
    await alice.send(room_id, **{"m.mentions": {"user_ids": [bob.user_id]}})
    assert await listed(bob) == [(heard, False)]


async def test_many_events_that_do_not_notify(alice: User, bob: User) -> None:
    room_id, busy_id = await alice.create_room(bob), await alice.create_room(bob)
    first = await alice.send(busy_id)
    second = await alice.send(room_id)
    for number in range(205):
        await alice.send(busy_id, "org.example.noise", number=number)
    assert await listed(bob) == [(second, False), (first, False)]


async def test_s38_wrong_parameters(alice: User) -> None:
    tokens = ["", "s1", "n", "n-1", "n9999999999999999999"]
    limits = [0, -1, "x", "1.0"]
    for query in [*({"from": token} for token in tokens), *({"limit": limit} for limit in limits)]:
        reply = await alice.call("GET", "/notifications", **query)
        assert (reply.status, reply.json["errcode"]) == (400, "M_INVALID_PARAM"), query


async def test_tokens_that_name_no_event(alice: User, bob: User) -> None:
    room_id = await alice.create_room(bob)
    event_id = await alice.send(room_id)
    for token in ("n0", "n1", f"n{2**63 - 1}", "n999999"):
        page = await bob.ok("GET", "/notifications", **{"from": token}, limit=10_000, only="nothing")
        found = [each["event"]["event_id"] for each in page["notifications"]]
        assert found == ([event_id] if len(token) > 2 else [])
        assert "next_token" not in page


async def test_it_takes_a_token(alice: User) -> None:
    assert (await alice.site.request("GET", "/notifications")).status == 401
