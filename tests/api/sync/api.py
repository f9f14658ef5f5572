"""Devices that sync, against a whole server."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.api.server import Client, Site

_transactions = itertools.count(1)


@dataclass
class Sync:
    """A response to `/sync`."""

    body: Any

    @property
    def next_batch(self) -> str:
        """Where the next sync goes on."""
        token: str = self.body["next_batch"]
        return token

    @property
    def is_empty(self) -> bool:
        """Whether it tells nothing."""
        return set(self.body) == {"next_batch"}

    def rooms(self, membership: str = "join") -> Any:
        """The rooms of one section, by their ids."""
        return self.body.get("rooms", {}).get(membership, {})

    def room(self, room_id: str, membership: str = "join") -> Any:
        """A room, which must be there."""
        return self.rooms(membership)[room_id]

    def timeline(self, room_id: str, membership: str = "join") -> list[Any]:
        """The events of a room's timeline; none if the room is not there."""
        events: list[Any] = self.rooms(membership).get(room_id, {"timeline": {"events": []}})["timeline"]["events"]
        return events

    def bodies(self, room_id: str, membership: str = "join") -> list[str]:
        """The texts of the messages in a room's timeline."""
        events = self.timeline(room_id, membership)
        return [event["content"]["body"] for event in events if event["type"] == "m.room.message"]

    def state(self, room_id: str, membership: str = "join", *, member: str = "state") -> dict[tuple[str, str], Any]:
        """The events of a room's state section, by type and state key."""
        events = self.rooms(membership).get(room_id, {member: {"events": []}})[member]["events"]
        found = {(event["type"], event["state_key"]): event for event in events}
        assert len(found) == len(events), "an entry of the state is told twice"
        return found

    def members(self, room_id: str, membership: str = "join", *, member: str = "state") -> set[str]:
        """Whose member events a room's state section has."""
        state = self.state(room_id, membership, member=member)
        return {state_key for event_type, state_key in state if event_type == "m.room.member"}

    def ephemeral(self, room_id: str, event_type: str) -> list[Any]:
        """The contents of a room's ephemeral events of a type."""
        events = self.rooms().get(room_id, {"ephemeral": {"events": []}})["ephemeral"]["events"]
        return [event["content"] for event in events if event["type"] == event_type]

    def room_account_data(self, room_id: str, membership: str = "join") -> dict[str, Any]:
        """A room's account data by type."""
        events = self.rooms(membership).get(room_id, {"account_data": {"events": []}})["account_data"]["events"]
        return {event["type"]: event["content"] for event in events}

    @property
    def account_data(self) -> dict[str, Any]:
        """The account data of no room by type."""
        events = self.body.get("account_data", {"events": []})["events"]
        return {event["type"]: event["content"] for event in events}

    @property
    def presence(self) -> dict[str, Any]:
        """The presence events' contents by user."""
        events = self.body.get("presence", {"events": []})["events"]
        return {event["sender"]: event["content"] for event in events}


@dataclass
class Device(Client):
    """A client that remembers how far it has synced.

    Attributes:
        since: the `next_batch` of its last sync.
        sync_query: the parameters of all its syncs.
    """

    since: str | None = None
    sync_query: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, client: Client, **sync_query: Any) -> "Device":
        """A device with a client's session."""
        return cls(**vars(client), sync_query=sync_query)

    async def sync(self, **query: Any) -> Sync:
        """Syncs once, from where the last sync ended unless it is said otherwise."""
        sync = await self.peek(**query)
        self.since = sync.next_batch
        return sync

    async def peek(self, **query: Any) -> Sync:
        """Syncs once, without remembering that."""
        asked = {"since": self.since, **self.sync_query, **query}
        named = {name: _text(value) for name, value in asked.items() if value is not None}
        return Sync(await self.get("/sync", **named))

    async def caught_up(self) -> "Device":
        """The same device, which has synced all that there is."""
        await self.sync()
        return self

    async def until(self, room_id: str, text: str, **query: Any) -> Sync:
        """Syncs, waiting, until a message with this text has come; the sync that brought it."""
        while True:
            sync = await self.sync(timeout=10_000, **query)
            assert not sync.is_empty, "nothing came in time"
            if text in sync.bodies(room_id):
                return sync

    async def create(self, *members: "Device", **body: Any) -> str:
        """Makes a room which others join."""
        room_id: str = (await self.post("/createRoom", {"preset": "public_chat", **body}))["room_id"]
        for member in members:
            await member.act(room_id, "join")
        return room_id

    async def act(self, room_id: str, action: str, **body: Any) -> None:
        """Does something to memberships: join, leave, invite, kick, ban, unban, forget."""
        await self.post(f"/rooms/{room_id}/{action}", body)

    async def send(self, room_id: str, text: str = "hello", **content: Any) -> str:
        """Sends a text message; the event's id."""
        return await self.send_event(room_id, "m.room.message", {"msgtype": "m.text", "body": text, **content})

    async def send_event(self, room_id: str, event_type: str, content: Mapping[str, Any]) -> str:
        """Sends an event that is no state; its id."""
        path = f"/rooms/{room_id}/send/{event_type}/t{next(_transactions)}"
        event_id: str = (await self.put(path, content))["event_id"]
        return event_id

    async def set_state(self, room_id: str, event_type: str, content: Any, state_key: str = "") -> str:
        """Sends a state event; its id."""
        event_id: str = (await self.put(f"/rooms/{room_id}/state/{event_type}/{state_key}", content))["event_id"]
        return event_id

    async def rename(self, room_id: str, name: str) -> str:
        """Gives a room a name."""
        return await self.set_state(room_id, "m.room.name", {"name": name})

    async def redact(self, room_id: str, event_id: str, **body: Any) -> str:
        """Redacts an event."""
        path = f"/rooms/{room_id}/redact/{event_id}/t{next(_transactions)}"
        redaction_id: str = (await self.put(path, body))["event_id"]
        return redaction_id

    async def ignore(self, *others: "Device") -> None:
        """Ignores these users and nobody else."""
        content = {"ignored_users": {other.user_id: {} for other in others}}
        await self.put(f"/user/{self.user_id}/account_data/m.ignored_user_list", content)

    async def read(self, room_id: str, event_id: str, *, receipt_type: str = "m.read", **body: Any) -> None:
        """Puts a receipt."""
        await self.post(f"/rooms/{room_id}/receipt/{receipt_type}/{event_id}", body)

    async def type(self, room_id: str, *, typing: bool = True) -> None:
        """Begins or stops typing."""
        await self.put(f"/rooms/{room_id}/typing/{self.user_id}", {"typing": typing, "timeout": 30_000})


async def register(site: Site, *names: str) -> list[Device]:
    """New users with one device each."""
    return [Device.of(await site.register(name)) for name in names]


def event_ids(events: Sequence[Any]) -> list[str]:
    """The ids of events."""
    return [event["event_id"] for event in events]


def types(events: Sequence[Any]) -> list[str]:
    """The types of events."""
    return [event["type"] for event in events]


def timeline_filter(**timeline: Any) -> dict[str, Any]:
    """A filter for timelines."""
    return {"room": {"timeline": timeline}}


def lazy_filter(**more: Any) -> dict[str, Any]:
    """A filter that asks for lazy loading; `limit` is that of the timeline."""
    limit = more.pop("limit", 10)
    return {"room": {"timeline": {"limit": limit}, "state": {"lazy_load_members": True, **more}}}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return orjson.dumps(value).decode()
    return str(value)
