"""Reporting rooms, events and users; mutual rooms."""

from typing import Any

import pytest

from storage.reports import ReportRow, list_reports
from tests.api.history.api import ReadingServer, User, refused, succeeded


async def _reports(server: ReadingServer) -> list[ReportRow]:
    async with server.db.connection() as conn:
        return await list_reports(conn, before=2**62, limit=10)


async def _report(user: User, path: str, **body: Any) -> None:
    succeeded(await user.call("POST", f"{path}", body))


async def test_reports_are_kept(server: ReadingServer, alice: User, bob: User) -> None:
    room_id = await alice.create(preset="public_chat")
    await bob.join(room_id)
    event_id = await alice.send(room_id, "nasty")
    await _report(bob, f"/rooms/{room_id}/report/{event_id}", reason="It is nasty", score=-50)
    await _report(bob, f"/rooms/{room_id}/report/{event_id}")
    await _report(bob, f"/rooms/{room_id}/report", reason="")
    await _report(bob, f"/users/{alice.user_id}/report", reason="So is she")
    await _report(bob, "/users/@eve:elsewhere.org/report", reason="She too")
    kept = await _reports(server)
    assert [(row.user_id, row.room_id, row.event_id, row.reason, row.score) for row in kept] == [
        ("@eve:elsewhere.org", None, None, "She too", None),
        (alice.user_id, None, None, "So is she", None),
        (None, room_id, None, "", None),
        (None, room_id, event_id, None, None),
        (None, room_id, event_id, "It is nasty", -50),
    ]
    assert {row.reporter for row in kept} == {bob.user_id}


async def test_rooms_and_users_are_reported_by_anybody(server: ReadingServer, alice: User, bob: User) -> None:
    room_id = await alice.create()
    await _report(bob, f"/rooms/{room_id}/report", reason="seen in an invitation")
    refused(await bob.call("POST", "/rooms/!absent:example.org/report", {"reason": ""}), 404, "M_NOT_FOUND")
    refused(await bob.call("POST", "/users/@nobody:example.org/report", {"reason": ""}), 404, "M_NOT_FOUND")
    assert len(await _reports(server)) == 1


async def test_s19_events_are_reported_by_those_who_see_them(server: ReadingServer, alice: User, bob: User) -> None:
    """A report does not tell whether an event exists that one may not see (lesson S19)."""
    state = [{"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "joined"}}]
    room_id = await alice.create(preset="public_chat", initial_state=state)
    hidden = await alice.send(room_id)
    absent = await bob.call("POST", f"/rooms/{room_id}/report/$absent", {})
    refused(absent, 404, "M_NOT_FOUND")
    assert (await bob.call("POST", f"/rooms/{room_id}/report/{hidden}", {})).body == absent.body
    await bob.join(room_id)
    assert (await bob.call("POST", f"/rooms/{room_id}/report/{hidden}", {})).body == absent.body
    other = await alice.create()
    secret = await alice.send(other)
    assert (await bob.call("POST", f"/rooms/{room_id}/report/{secret}", {})).body == absent.body
    seen = await alice.send(room_id)
    await bob.leave(room_id)
    assert (await bob.call("POST", f"/rooms/{room_id}/report/{seen}", {})).body == absent.body
    assert await _reports(server) == []


@pytest.mark.parametrize(
    ("path", "body", "errcode"),
    [
        ("/rooms/{room}/report", {}, "M_MISSING_PARAM"),
        ("/rooms/{room}/report", {"reason": 5}, "M_BAD_JSON"),
        ("/rooms/{room}/report", {"reason": "a" * 4097}, "M_BAD_JSON"),
        ("/rooms/{room}/report", {"reason": "\0"}, "M_INVALID_PARAM"),
        ("/rooms/nonsense/report", {"reason": ""}, "M_INVALID_PARAM"),
        ("/rooms/{room}/report/{event}", {"reason": None}, "M_BAD_JSON"),
        ("/rooms/{room}/report/{event}", {"score": "-5"}, "M_BAD_JSON"),
        ("/rooms/{room}/report/{event}", {"score": -101}, "M_BAD_JSON"),
        ("/rooms/{room}/report/{event}", {"score": 1}, "M_BAD_JSON"),
        ("/rooms/{room}/report/nonsense", {}, "M_INVALID_PARAM"),
        ("/users/{user}/report", {}, "M_MISSING_PARAM"),
        ("/users/nonsense/report", {"reason": ""}, "M_INVALID_PARAM"),
    ],
)
async def test_wrong_reports(server: ReadingServer, alice: User, path: str, body: Any, errcode: str) -> None:
    room_id = await alice.create()
    event_id = await alice.send(room_id)
    target = path.format(room=room_id, event=event_id, user=alice.user_id)
    refused(await server.call("POST", target, body, token=alice.token), 400, errcode)
    assert await _reports(server) == []


async def test_guests_do_not_report(server: ReadingServer, alice: User) -> None:
    guest = await server.user("guest", is_guest=True)
    reply = await guest.call("POST", f"/users/{alice.user_id}/report", {"reason": ""})
    refused(reply, 403, "M_GUEST_ACCESS_FORBIDDEN")


async def test_mutual_rooms(alice: User, bob: User, carol: User) -> None:
    path = "/_matrix/client/v1/mutual_rooms"
    shared = [await alice.create(preset="public_chat") for _ in range(3)]
    await alice.create()
    await bob.create()
    for room_id in shared:
        await bob.join(room_id)
    await carol.join(shared[0])
    await bob.leave(shared[2])
    assert await alice.get(path, user_id=bob.user_id) == {"joined": shared[:2], "count": 2}
    assert await bob.get(path, user_id=alice.user_id) == {"joined": shared[:2], "count": 2}
    assert await carol.get(path, user_id=bob.user_id) == {"joined": shared[:1], "count": 1}
    assert await alice.get(path, user_id="@nobody:example.org") == {"joined": [], "count": 0}
    old = "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms"
    assert (await alice.get(old, user_id=bob.user_id))["joined"] == shared[:2]
    refused(await alice.call("GET", path), 400, "M_MISSING_PARAM")
    refused(await alice.call("GET", path, user_id=alice.user_id), 400, "M_INVALID_PARAM")
    refused(await alice.call("GET", path, user_id="nonsense"), 400, "M_INVALID_PARAM")
    refused(await alice.call("GET", path, user_id=bob.user_id, **{"from": "x"}), 400, "M_INVALID_PARAM")


async def test_pages_of_mutual_rooms(server: ReadingServer, alice: User, bob: User) -> None:
    path = "/_matrix/client/v1/mutual_rooms"
    async with server.db.connection() as conn:
        await conn.execute(
            """
            WITH made AS (
                INSERT INTO rooms (room_id, room_version) SELECT '!r' || n || ':example.org', '11'
                FROM generate_series(1, 600) AS n RETURNING room_nid
            )
            INSERT INTO memberships (user_id, room_nid, membership, event_nid, sender)
            SELECT u, room_nid, 'join', 0, u FROM made, unnest($1::text[]) AS u
            """,
            [alice.user_id, bob.user_id],
        )
    first = await alice.get(path, user_id=bob.user_id)
    second = await alice.get(path, user_id=bob.user_id, **{"from": first["next_batch"]})
    assert (len(first["joined"]), len(second["joined"])) == (500, 100)
    assert first["count"] == second["count"] == len({*first["joined"], *second["joined"]}) == 600
    assert "next_batch" not in second
