"""Filters: https://spec.matrix.org/v1.19/client-server-api/#filtering."""

import asyncio
from typing import Any

import pytest

from homeserver.core.errors import NotFound
from homeserver.core.ids import UserId
from tests.api.server import Client, Server, refused

PATH = "/user/@alice:test/filter"
DEFINITION = {"room": {"timeline": {"limit": 7, "types": ["m.room.*"]}}, "event_fields": ["type"], "org.example": 1.5}


async def test_a_filter_is_stored(server: Server, alice: Client) -> None:
    filter_id = (await alice.post(PATH, DEFINITION))["filter_id"]
    assert isinstance(filter_id, str)
    assert not filter_id.startswith("{")
    assert await alice.get(f"{PATH}/{filter_id}") == DEFINITION
    assert (await server.accounts.filters.get(UserId("@alice:test"), filter_id)).room.timeline.limit == 7
    assert (await alice.post(PATH, DEFINITION))["filter_id"] == filter_id
    assert (await alice.post(PATH, {}))["filter_id"] != filter_id


async def test_many_at_once(alice: Client) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(alice.post(PATH, {"room": {"timeline": {"limit": number % 3 + 1}}}))
            for number in range(9)
        ]
    assert len({task.result()["filter_id"] for task in tasks}) == 3


@pytest.mark.parametrize(
    "definition",
    [
        [],
        {"room": "all"},
        {"room": {"timeline": {"limit": "7"}}},
        {"room": {"rooms": [1]}},
        {"presence": {"not_senders": "@a:b"}},
        {"event_format": "other"},
    ],
)
async def test_wrong_filters(alice: Client, definition: Any) -> None:
    refused(await alice.call("POST", PATH, definition), 400, "M_BAD_JSON")


async def test_filters_are_private(alice: Client, bob: Client) -> None:
    filter_id = (await alice.post(PATH, DEFINITION))["filter_id"]
    refused(await bob.call("GET", f"{PATH}/{filter_id}"), 403, "M_FORBIDDEN")
    refused(await bob.call("POST", PATH, {}), 403, "M_FORBIDDEN")
    refused(await bob.call("GET", f"/user/@bob:test/filter/{filter_id}"), 404, "M_NOT_FOUND")


@pytest.mark.parametrize("filter_id", ["99", "x", "-1", "9" * 30, "٣"])
async def test_unknown_filters(server: Server, alice: Client, filter_id: str) -> None:
    refused(await alice.call("GET", f"{PATH}/{filter_id}"), 404, "M_NOT_FOUND")
    with pytest.raises(NotFound):
        await server.accounts.filters.get(UserId("@alice:test"), filter_id)
