"""Deactivated users leave their rooms, also if a process stops in between."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from homeserver.services.admin.departures import Departures
from storage import users
from storage.users import list_pending_departures
from tests.api.rooms.api import RoomsApi, User, rooms_api
from tests.waiting import wait_until


async def deactivate(api: RoomsApi, user: User) -> None:
    """What the deactivation of an account leaves to do."""
    async with api.db.transaction() as conn:
        await users.deactivate_user(conn, user.user_id, deactivated_ts=1, erase=False)
        await users.insert_pending_departure(conn, user.user_id, requested_ts=1)


async def nobody_waits(api: RoomsApi) -> bool:
    """Whether all have left."""
    async with api.db.connection() as conn:
        return not await list_pending_departures(conn, limit=1)


@asynccontextmanager
async def departures(api: RoomsApi) -> AsyncIterator[asyncio.Event]:
    """The work, running."""
    due = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(Departures(db=api.db, memberships=api.memberships, due=due).run())
        yield due
        task.cancel()


async def test_rooms_are_left_and_invitations_rejected(database_url: str) -> None:
    async with rooms_api(database_url) as api:
        alice, bob = await api.user("alice"), await api.user("bob")
        joined = await alice.create(preset="public_chat")
        await bob.join(joined)
        invited = await alice.create(invite=[bob.user_id])
        own = await bob.create()
        async with departures(api) as due:
            await deactivate(api, bob)
            due.set()
            await wait_until(lambda: nobody_waits(api))
        assert await alice.membership(joined, bob) == "leave"
        assert await alice.membership(invited, bob) == "leave"
        assert await api.memberships.list_joined(bob.requester) == []
        assert await alice.membership(joined, alice) == "join"
        assert own


async def test_what_was_left_over_is_done_at_the_start(database_url: str) -> None:
    async with rooms_api(database_url) as api:
        alice, bob = await api.user("alice"), await api.user("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        await deactivate(api, bob)
        async with departures(api), departures(api):
            await wait_until(lambda: nobody_waits(api))
        assert await alice.membership(room, bob) == "leave"


async def test_who_was_given_back_the_account_stays(database_url: str) -> None:
    async with rooms_api(database_url) as api:
        alice = await api.user("alice")
        room = await alice.create()
        async with api.db.transaction() as conn:
            await users.insert_pending_departure(conn, alice.user_id, requested_ts=1)
        async with departures(api):
            await wait_until(lambda: nobody_waits(api))
        assert await alice.membership(room, alice) == "join"
