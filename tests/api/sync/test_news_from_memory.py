"""What one reader has been told of costs the next ones no reading, and is what the database would tell."""

from storage.database import measure_database
from tests.api.server import Site
from tests.api.sync.api import Device, lazy_filter, register


async def statements(device: Device, **query: object) -> int:
    """How many statements a device's next sync takes."""
    with measure_database() as usage:
        await device.sync(**query)
    return usage.statements


async def test_whoever_comes_second_finds_the_news_in_memory(site: Site, alice: Device, bob: Device) -> None:
    (carol,) = await register(site, "trudy")
    room_id = await alice.create(bob, carol)
    for device in (bob, carol):
        await device.sync(since=None)
        await device.caught_up()
    for _ in range(2):
        await alice.send(room_id, "news")
        await bob.sync(timeout=1000)
        # Who asks may be looked up again.
        assert await statements(carol, timeout=1000) <= 1


async def test_a_lazy_client_that_knows_the_sender_too(site: Site, alice: Device, bob: Device) -> None:
    (carol,) = await register(site, "trudy")
    room_id = await alice.create(bob, carol)
    await alice.send(room_id, "first")
    for device in (bob, carol):
        await device.sync(since=None, filter=lazy_filter())
        await device.sync(filter=lazy_filter())
    await alice.send(room_id, "news")
    await bob.sync(timeout=1000, filter=lazy_filter())
    assert await statements(carol, timeout=1000, filter=lazy_filter()) <= 1


async def test_what_was_redacted_is_not_told_from_memory(alice: Device, bob: Device, carol: Device) -> None:
    room_id = await alice.create(bob, carol)
    for device in (bob, carol):
        await device.sync(since=None)
    event_id = await alice.send(room_id, "a secret")
    assert (await bob.sync(timeout=1000)).bodies(room_id) == ["a secret"]
    await alice.redact(room_id, event_id)
    told = await carol.sync(timeout=1000)
    secret = next(event for event in told.timeline(room_id) if event["event_id"] == event_id)
    assert secret["content"] == {}
    assert secret["unsigned"]["redacted_because"]["sender"] == alice.user_id


async def test_a_reader_who_is_far_behind_is_told_all_the_same(alice: Device, bob: Device, carol: Device) -> None:
    room_id = await alice.create(bob, carol)
    for device in (bob, carol):
        await device.sync(since=None)
    sent = []
    for number in range(70):
        sent.append(f"{number}")
        await alice.send(room_id, sent[-1])
        await bob.sync(timeout=1000)
    told = await carol.sync(timeout=1000, filter={"room": {"timeline": {"limit": 100}}})
    assert told.bodies(room_id) == sent
    assert told.room(room_id)["unread_notifications"]["notification_count"] == 70


async def test_filters_and_ignored_users_hold_for_memory_too(alice: Device, bob: Device, carol: Device) -> None:
    room_id = await alice.create(bob, carol)
    for device in (bob, carol):
        await device.sync(since=None)
    await carol.ignore(alice)
    await carol.caught_up()
    await alice.send(room_id, "from alice")
    await bob.send(room_id, "from bob")
    await bob.send_event(room_id, "org.example.note", {"body": "a note"})
    await bob.sync(timeout=1000)
    chosen = {"room": {"timeline": {"types": ["m.room.*"], "not_senders": []}}}
    told = await carol.sync(timeout=1000, filter=chosen)
    assert told.bodies(room_id) == ["from bob"]
    assert told.room(room_id)["unread_notifications"]["notification_count"] == 1


async def test_what_is_unread_is_carried_on(alice: Device, bob: Device, carol: Device) -> None:
    room_id = await alice.create(bob, carol)
    for device in (alice, bob, carol):
        await device.sync(since=None)

    async def unread(device: Device) -> tuple[int, int]:
        counts = (await device.sync(timeout=1000)).room(room_id)["unread_notifications"]
        return counts["notification_count"], counts["highlight_count"]

    await alice.send(room_id, "one")
    assert await unread(bob) == (1, 0)
    await alice.send(room_id, "two", **{"m.mentions": {"user_ids": [bob.user_id]}})
    assert (await unread(bob), await unread(carol)) == ((2, 1), (2, 0))
    event_id = await bob.send(room_id, "three")
    assert (await unread(bob), await unread(carol)) == ((0, 0), (3, 0))
    await carol.read(room_id, event_id)
    await alice.send(room_id, "four")
    assert (await unread(bob), await unread(carol)) == ((1, 0), (1, 0))
