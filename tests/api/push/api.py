"""Users of a whole server, and what they are notified of as their syncs tell it."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import orjson

from tests.api.server import Client, Site
from tests.web.harness import Reply

_BY_THREAD = {"room": {"timeline": {"unread_thread_notifications": True}}}

Counts = tuple[int, int]
"""How many notifications, and how many of them are highlighted."""


@dataclass
class User:
    """A user of the server."""

    site: Site
    client: Client
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def user_id(self) -> str:
        """Its id."""
        return self.client.user_id

    async def call(self, method: str, path: str, json: Any = None, **query: Any) -> Reply:
        """Sends a request; `path` is percent-encoded where it must be, and `json` may be bytes as they are."""
        body = json if isinstance(json, bytes) else None if json is None else orjson.dumps(json)
        return await self.site.request(method, path, token=self.client.token, body=body, query=query)

    async def ok(self, method: str, path: str, json: Any = None, **query: Any) -> Any:
        """The answer to a request that must succeed."""
        reply = await self.call(method, path, json, **query)
        assert reply.status == 200, reply.body
        return reply.json

    async def create_room(self, *members: "User", **body: Any) -> str:
        """Makes a room, which other users join."""
        room_id: str = (await self.ok("POST", "/createRoom", {"preset": "public_chat", **body}))["room_id"]
        for member in members:
            await member.join(room_id)
        return room_id

    async def join(self, room_id: str) -> None:
        """Joins a room."""
        await self.ok("POST", f"/rooms/{encoded(room_id)}/join", {})

    async def send(self, room_id: str, event_type: str = "m.room.message", **content: Any) -> str:
        """Sends an event; without content a text message."""
        content = {"msgtype": "m.text", "body": "hello", **content} if event_type == "m.room.message" else content
        path = f"/rooms/{encoded(room_id)}/send/{event_type}/{next(self.numbers)}"
        event_id: str = (await self.ok("PUT", path, content))["event_id"]
        return event_id

    async def send_state(self, room_id: str, event_type: str, content: Any, state_key: str = "") -> str:
        """Sends a state event."""
        path = f"/rooms/{encoded(room_id)}/state/{event_type}/{encoded(state_key)}"
        event_id: str = (await self.ok("PUT", path, content))["event_id"]
        return event_id

    async def redact(self, room_id: str, event_id: str) -> None:
        """Redacts an event."""
        path = f"/rooms/{encoded(room_id)}/redact/{encoded(event_id)}/{next(self.numbers)}"
        await self.ok("PUT", path, {})

    async def read(self, room_id: str, event_id: str, *, receipt_type: str = "m.read", **body: Any) -> None:
        """Puts a receipt."""
        await self.ok("POST", f"/rooms/{encoded(room_id)}/receipt/{receipt_type}/{encoded(event_id)}", body)

    async def put_rule(self, kind: str, rule_id: str, *actions: Any, **body: Any) -> None:
        """Adds a push rule."""
        await self.ok("PUT", f"/pushrules/global/{kind}/{encoded(rule_id)}", {"actions": actions, **body})

    async def ignore(self, *users: "User") -> None:
        """Ignores these users and nobody else."""
        content = {"ignored_users": {user.user_id: {} for user in users}}
        await self.ok("PUT", f"/user/{encoded(self.user_id)}/account_data/m.ignored_user_list", content)

    async def room(self, room_id: str, *, by_thread: bool = False) -> Any:
        """A joined room in a first sync."""
        sync_filter = orjson.dumps(_BY_THREAD if by_thread else {}).decode()
        return (await self.ok("GET", "/sync", filter=sync_filter))["rooms"]["join"][room_id]

    async def unread(self, room_id: str) -> Counts:
        """What is unread of a room."""
        body = await self.room(room_id)
        assert "unread_thread_notifications" not in body
        return counts(body["unread_notifications"])

    async def unread_by_thread(self, room_id: str) -> dict[str, Counts]:
        """What is unread of each thread; the main timeline is `main`."""
        body = await self.room(room_id, by_thread=True)
        threads = body.get("unread_thread_notifications", {})
        unread = {root: counts(of_thread) for root, of_thread in threads.items()}
        assert all(of_thread != (0, 0) for of_thread in unread.values())
        return {"main": counts(body["unread_notifications"]), **unread}


async def register(site: Site, name: str) -> User:
    """Makes a user."""
    return User(site, await site.register(name))


def encoded(text: str) -> str:
    """A text as a part of a path."""
    return quote(text, safe="")


def counts(body: Mapping[str, int]) -> Counts:
    """Counts as a sync tells them."""
    assert set(body) == {"notification_count", "highlight_count"}
    return body["notification_count"], body["highlight_count"]


def in_thread(root: str) -> dict[str, Any]:
    """The content by which a message belongs to a thread."""
    return {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
