"""Two people with matrix-nio's client, unchanged but for the URL: what they do works, and both see the same."""

import asyncio
import sys
from pathlib import Path

import aiohttp
import pytest
from nio import (
    AsyncClient,
    DevicesResponse,
    DirectRoomsResponse,
    JoinedMembersResponse,
    JoinedRoomsResponse,
    JoinResponse,
    LoginInfoResponse,
    LogoutResponse,
    PresenceGetResponse,
    PresenceSetResponse,
    ProfileGetResponse,
    ProfileSetDisplayNameResponse,
    ReceiptEvent,
    RoomBanResponse,
    RoomContextResponse,
    RoomCreateResponse,
    RoomForgetResponse,
    RoomGetEventResponse,
    RoomGetStateEventResponse,
    RoomGetStateResponse,
    RoomGetVisibilityResponse,
    RoomInviteResponse,
    RoomKickResponse,
    RoomLeaveResponse,
    RoomMemberEvent,
    RoomMessagesResponse,
    RoomMessageText,
    RoomPreset,
    RoomPutAliasResponse,
    RoomPutStateResponse,
    RoomReadMarkersResponse,
    RoomRedactResponse,
    RoomResolveAliasResponse,
    RoomSendResponse,
    RoomTypingResponse,
    RoomUnbanResponse,
    RoomVisibility,
    TypingNoticeEvent,
    UpdateReceiptMarkerResponse,
    UploadFilterResponse,
    WhoamiResponse,
)
from nio.events.room_events import RedactedEvent, RedactionEvent
from nio.responses import RoomUpgradeResponse

from tests.clients.nio_clients import PASSWORD, good, heard_messages, joined, logged_in, received, synced, understood
from tests.processes import HomeserverProcess

EXAMPLE = Path(__file__).parents[2] / "examples" / "first_chat.py"

pytestmark = [
    # Of nio itself, with newer versions of its own dependencies.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:nio.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:aiohttp.*"),
]


async def create_room(creator: AsyncClient, *others: AsyncClient, **options: object) -> str:
    """A room of which all are members, and know it."""
    options = {"preset": RoomPreset.private_chat, "invite": [other.user_id for other in others], **options}
    room_id = good(await creator.room_create(**options), RoomCreateResponse).room_id
    for other in others:
        good(await other.join(room_id), JoinResponse)
    for client in (creator, *others):
        await synced(client)
        assert room_id in client.rooms
    return room_id


async def say(client: AsyncClient, room_id: str, body: str, **more: object) -> str:
    content = {"msgtype": "m.text", "body": body, **more}
    return good(await client.room_send(room_id, "m.room.message", content), RoomSendResponse).event_id


async def history(client: AsyncClient, room_id: str) -> list[str]:
    """The ids of all events of a room, the oldest first, page by page."""
    event_ids: list[str] = []
    start: str | None = None
    while True:
        page = good(await client.room_messages(room_id, start, limit=7), RoomMessagesResponse)
        event_ids += [event.event_id for event in understood(page.chunk)]
        if page.end is None:
            return event_ids[::-1]
        start = page.end


async def test_the_example_of_a_first_chat(server: HomeserverProcess) -> None:
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLE), server.url), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await program.communicate()
    assert program.returncode == 0
    assert "says 'Hello, Bob'" in output.decode()


async def test_accounts(server: HomeserverProcess, alice: AsyncClient) -> None:
    assert good(await alice.whoami(), WhoamiResponse).user_id == alice.user_id == f"@{alice.user}:test"
    assert "m.login.password" in good(await alice.login_info(), LoginInfoResponse).flows
    async with logged_in(server.url, alice.user) as laptop:
        devices = good(await alice.devices(), DevicesResponse).devices
        assert {device.id for device in devices} == {alice.device_id, laptop.device_id}
        assert {device.display_name for device in devices} == {f"{alice.user}'s phone", f"{alice.user}'s laptop"}
        good(await laptop.logout(), LogoutResponse)
    assert [device.id for device in good(await alice.devices(), DevicesResponse).devices] == [alice.device_id]
    assert (await alice.login("wrong")).status_code == "M_FORBIDDEN"


async def test_a_conversation(alice: AsyncClient, bob: AsyncClient) -> None:
    room_id = good(
        await alice.room_create(name="Kitchen", topic="Food", invite=[bob.user_id]), RoomCreateResponse
    ).room_id
    invitation = (await synced(bob)).rooms.invite[room_id]
    assert {type(event).__name__ for event in invitation.invite_state} >= {"InviteMemberEvent", "InviteNameEvent"}
    assert bob.invited_rooms[room_id].display_name == "Kitchen"
    good(await bob.join(room_id), JoinResponse)
    for client in (alice, bob):
        await synced(client)
        room = client.rooms[room_id]
        assert (room.display_name, room.topic, room.member_count) == ("Kitchen", "Food", 2)

    sent = [await say(alice, room_id, "Is there soup?"), await say(bob, room_id, "There is.")]
    for client in (alice, bob):
        heard = await heard_messages(client, room_id, 2)
        assert [(event.event_id, event.body) for event in heard] == list(
            zip(sent, ("Is there soup?", "There is."), strict=True)
        )
    assert (await history(alice, room_id))[-2:] == sent
    assert await history(alice, room_id) == await history(bob, room_id)
    assert good(await bob.joined_rooms(), JoinedRoomsResponse).rooms == [room_id]
    members = good(await bob.joined_members(room_id), JoinedMembersResponse).members
    assert {member.user_id for member in members} == {alice.user_id, bob.user_id}


async def test_what_is_only_for_the_moment(alice: AsyncClient, bob: AsyncClient) -> None:
    room_id = await create_room(alice, bob)
    good(await bob.room_typing(room_id, typing_state=True, timeout=20_000), RoomTypingResponse)
    assert (await received(alice, room_id, TypingNoticeEvent)).users == [bob.user_id]
    event_id = await say(alice, room_id, "hello")
    await received(bob, room_id, RoomMessageText)
    good(await bob.update_receipt_marker(room_id, event_id), UpdateReceiptMarkerResponse)
    receipts = (await received(alice, room_id, ReceiptEvent)).receipts
    assert [(receipt.event_id, receipt.user_id) for receipt in receipts] == [(event_id, bob.user_id)]
    good(await alice.room_read_markers(room_id, event_id, event_id), RoomReadMarkersResponse)
    room = joined(await synced(alice, timeout=10_000), room_id)
    assert [event.event_id for event in room.account_data] == [event_id]
    good(await alice.set_presence("unavailable", "Away for lunch"), PresenceSetResponse)
    presence = good(await bob.get_presence(alice.user_id), PresenceGetResponse)
    assert (presence.presence, presence.status_msg) == ("unavailable", "Away for lunch")


async def test_unread_messages_are_counted(alice: AsyncClient, bob: AsyncClient) -> None:
    room_id = await create_room(alice, bob)
    await say(alice, room_id, "one")
    event_id = await say(alice, room_id, "two")
    counts = joined(await synced(bob, timeout=10_000), room_id).unread_notifications
    assert (counts.notification_count, counts.highlight_count) == (2, 0)
    good(await bob.update_receipt_marker(room_id, event_id), UpdateReceiptMarkerResponse)
    counts = joined(await synced(bob, timeout=10_000), room_id).unread_notifications
    assert (counts.notification_count, counts.highlight_count) == (0, 0)


async def test_a_message_is_redacted(alice: AsyncClient, bob: AsyncClient) -> None:
    room_id = await create_room(alice, bob)
    event_id = await say(alice, room_id, "My password is 1234")
    redaction = good(await alice.room_redact(room_id, event_id, "Oops"), RoomRedactResponse).event_id
    told = await received(bob, room_id, RedactionEvent)
    assert (told.event_id, told.redacts, told.reason) == (redaction, event_id, "Oops")
    event = good(await bob.room_get_event(room_id, event_id), RoomGetEventResponse).event
    assert isinstance(event, RedactedEvent)
    assert "1234" not in str(event.source)


async def test_names_change_everywhere(alice: AsyncClient, bob: AsyncClient) -> None:
    room_id = await create_room(alice, bob)
    good(await alice.set_displayname("Alice in Chains"), ProfileSetDisplayNameResponse)
    assert (await received(bob, room_id, RoomMemberEvent)).content["displayname"] == "Alice in Chains"
    assert bob.rooms[room_id].user_name(alice.user_id) == "Alice in Chains"
    assert good(await bob.get_profile(alice.user_id), ProfileGetResponse).displayname == "Alice in Chains"


async def test_a_direct_message(server: HomeserverProcess, alice: AsyncClient, bob: AsyncClient) -> None:
    room_id = good(
        await alice.room_create(is_direct=True, preset=RoomPreset.trusted_private_chat, invite=[bob.user_id]),
        RoomCreateResponse,
    ).room_id
    # nio reads `m.direct`, but has no call that writes it.
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {alice.access_token}"}) as http:
        url = f"{server.url}/_matrix/client/v3/user/{alice.user_id}/account_data/m.direct"
        async with http.put(url, json={bob.user_id: [room_id]}) as answer:
            assert (answer.status, await answer.json()) == (200, {})
    assert good(await alice.list_direct_rooms(), DirectRoomsResponse).rooms == {bob.user_id: [room_id]}
    assert "m.direct" in str((await synced(alice)).account_data_events)
    invite_state = (await synced(bob)).rooms.invite[room_id].invite_state
    mine = [event for event in invite_state if getattr(event, "state_key", "") == bob.user_id]
    assert [event.content.get("is_direct") for event in mine] == [True]
    good(await bob.join(room_id), JoinResponse)
    await synced(bob)
    levels = good(await bob.room_get_state_event(room_id, "m.room.create"), RoomGetStateEventResponse)
    assert bob.user_id in levels.content["additional_creators"]


async def test_members_come_and_go(alice: AsyncClient, bob: AsyncClient) -> None:
    room_id = await create_room(alice, bob)
    good(await alice.room_kick(room_id, bob.user_id, "Enough"), RoomKickResponse)
    left = (await synced(bob)).rooms.leave[room_id]
    assert left.timeline.events[-1].content == {"membership": "leave", "reason": "Enough"}
    good(await alice.room_ban(room_id, bob.user_id), RoomBanResponse)
    assert (await bob.join(room_id)).status_code == "M_FORBIDDEN"
    good(await alice.room_unban(room_id, bob.user_id), RoomUnbanResponse)
    good(await alice.room_invite(room_id, bob.user_id), RoomInviteResponse)
    good(await bob.join(room_id), JoinResponse)
    await synced(bob)
    good(await bob.room_leave(room_id), RoomLeaveResponse)
    good(await bob.room_forget(room_id), RoomForgetResponse)
    assert good(await bob.joined_rooms(), JoinedRoomsResponse).rooms == []
    assert (await bob.room_messages(room_id)).status_code == "M_FORBIDDEN"


async def test_state_and_aliases(alice: AsyncClient, bob: AsyncClient) -> None:
    room_id = await create_room(alice, bob, visibility=RoomVisibility.public, alias="pantry", name="Kitchen")
    assert good(await bob.room_resolve_alias("#pantry:test"), RoomResolveAliasResponse).room_id == room_id
    assert good(await bob.room_get_visibility(room_id), RoomGetVisibilityResponse).visibility == "public"
    good(await alice.room_put_alias("#küche:test", room_id), RoomPutAliasResponse)
    good(await alice.room_put_state(room_id, "m.room.topic", {"topic": "Soup"}), RoomPutStateResponse)
    assert (await bob.room_put_state(room_id, "m.room.name", {"name": "Mine"})).status_code == "M_FORBIDDEN"
    state = good(await bob.room_get_state(room_id), RoomGetStateResponse).events
    assert {"topic": "Soup"} in [event["content"] for event in state]
    event_id = await say(alice, room_id, "hello")
    context = good(await bob.room_context(room_id, event_id, limit=4), RoomContextResponse)
    assert context.event.event_id == event_id
    assert understood(context.events_before)
    assert understood(context.state)


async def test_a_room_is_upgraded(alice: AsyncClient, bob: AsyncClient) -> None:
    room_id = await create_room(alice, bob, room_version="10", name="Kitchen")
    await say(alice, room_id, "before")
    new_id = good(await alice.room_upgrade(room_id, "11"), RoomUpgradeResponse).room_id
    tombstone = good(await bob.room_get_state_event(room_id, "m.room.tombstone"), RoomGetStateEventResponse)
    assert tombstone.content["replacement_room"] == new_id
    await synced(alice)
    assert (alice.rooms[new_id].display_name, alice.rooms[new_id].room_version) == ("Kitchen", "11")
    create = good(await alice.room_get_state_event(new_id, "m.room.create"), RoomGetStateEventResponse).content
    assert create["predecessor"]["room_id"] == room_id


async def test_syncs_with_filters(alice: AsyncClient, bob: AsyncClient) -> None:
    room_id = await create_room(alice, bob)
    for number in range(12):
        await say(alice, room_id, f"message {number}")
    stored = good(
        await bob.upload_filter(room={"timeline": {"limit": 3, "types": ["m.room.message"]}}), UploadFilterResponse
    ).filter_id
    async with logged_in(bob.homeserver, bob.user) as laptop:
        timeline = joined(await synced(laptop, sync_filter=stored), room_id).timeline
        assert [event.body for event in timeline.events] == ["message 9", "message 10", "message 11"]
        assert timeline.limited
        before = good(await laptop.room_messages(room_id, timeline.prev_batch, limit=1), RoomMessagesResponse)
        assert before.chunk[0].body == "message 8"
    lazy = {"room": {"state": {"lazy_load_members": True}, "timeline": {"limit": 1}}}
    async with logged_in(bob.homeserver, bob.user) as tablet:
        room = joined(await synced(tablet, sync_filter=lazy), room_id)
        members = [event for event in room.state if isinstance(event, RoomMemberEvent)]
        assert alice.user_id in [event.state_key for event in members]
        full = joined(await synced(tablet, full_state=True), room_id)
        members = [event for event in full.state if isinstance(event, RoomMemberEvent)]
        assert {event.state_key for event in members} == {alice.user_id, bob.user_id}


async def test_both_see_the_same_after_a_crash(server: HomeserverProcess, alice: AsyncClient, bob: AsyncClient) -> None:
    room_id = await create_room(alice, bob)
    sent = [await say(client, room_id, f"{client.user} {number}") for number in range(8) for client in (alice, bob)]
    await synced(alice)
    before = await history(alice, room_id)
    assert before[-16:] == sent
    await server.kill()
    await server.start()
    assert await history(alice, room_id) == before
    assert await history(bob, room_id) == before
    sent.append(await say(bob, room_id, "Still there?"))
    assert (await received(alice, room_id, RoomMessageText)).body == "Still there?"
    async with logged_in(server.url, alice.user) as laptop:
        room = joined(await synced(laptop, sync_filter={"room": {"timeline": {"limit": 100}}}), room_id)
        assert [event.event_id for event in room.timeline.events] == [*before, sent[-1]]
    assert (await alice.login(PASSWORD)).user_id == alice.user_id
