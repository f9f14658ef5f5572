"""Guests that nobody uses any more."""

from homeserver.services.accounts.guest_sweep import GuestSweep
from tests.api.server import CONFIG, Client, Server, refused, running_server, with_changes

GUESTS = with_changes(CONFIG, registration={"guest_access": True})
DAY_SECONDS = 24 * 3600
DAY_MS = DAY_SECONDS * 1000


async def new_guest(server: Server) -> Client:
    return server.client((await server.request("POST", "/register", query={"kind": "guest"}, json={})).json)


def sweep(server: Server, unused_ms: int | None) -> GuestSweep:
    return GuestSweep(db=server.db, clock=server.clock, deactivation=server.accounts.deactivation, unused_ms=unused_ms)


async def test_guests_go_when_nobody_has_used_them_for_long(database_url: str) -> None:
    async with running_server(database_url, GUESTS) as server:
        user = await server.register("alice")
        unused, used = await new_guest(server), await new_guest(server)
        server.clock.advance(20 * DAY_SECONDS)
        await used.get("/account/whoami")
        await server.accounts.last_seen.flush()
        server.clock.advance(20 * DAY_SECONDS)
        await sweep(server, None).sweep()
        await sweep(server, 50 * DAY_MS).sweep()
        async with server.db.connection() as conn:
            assert await conn.fetchval("SELECT count(*) FROM users WHERE deactivated_ts IS NOT NULL") == 0
        await sweep(server, 30 * DAY_MS).sweep()
        refused(await unused.call("GET", "/account/whoami"), 401, "M_UNKNOWN_TOKEN")
        assert (await used.get("/account/whoami"))["is_guest"] is True
        assert (await user.get("/account/whoami"))["is_guest"] is False
        async with server.db.connection() as conn:
            gone = await conn.fetch("SELECT user_id FROM users WHERE deactivated_ts IS NOT NULL")
        assert [row["user_id"] for row in gone] == [unused.user_id]
        assert (await new_guest(server)).user_id not in {unused.user_id, used.user_id}
