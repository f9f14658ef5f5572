"""A client that follows its syncs as the specification tells it to, and so knows what the server knows."""

from dataclasses import dataclass, field
from typing import Any

from tests.api.sync.api import Device, Sync

Slot = tuple[str, str]


@dataclass
class Room:
    """What the client knows of a joined room.

    Attributes:
        state: the ids of the state events.
        heard: the ids of the timeline's events, in order, since the last gap.
    """

    state: dict[Slot, str] = field(default_factory=dict)
    heard: list[str] = field(default_factory=list)
    counts: Any = None
    summary: dict[str, Any] = field(default_factory=dict)
    account_data: dict[str, Any] = field(default_factory=dict)
    typing: list[str] = field(default_factory=list)
    receipts: dict[tuple[str, str], str] = field(default_factory=dict)


@dataclass
class Follower:
    """A client of a device.

    Attributes:
        strays: mistakes of the server: events that came twice, senders whom the client does not know.
    """

    device: Device
    joined: dict[str, Room] = field(default_factory=dict)
    offered: set[str] = field(default_factory=set)
    account_data: dict[str, Any] = field(default_factory=dict)
    heard: set[str] = field(default_factory=set)
    strays: list[str] = field(default_factory=list)
    gaps: int = 0

    async def follow(self, *, timeout_ms: int = 0) -> Sync:
        """Syncs once."""
        sync = await self.device.sync(timeout=timeout_ms)
        for room_id, told in sync.rooms("join").items():
            self.offered.discard(room_id)
            self._take_joined(self.joined.setdefault(room_id, Room()), told)
        for section in ("invite", "knock"):
            for room_id in sync.rooms(section):
                self.joined.pop(room_id, None)
                self.offered.add(room_id)
        for room_id in sync.rooms("leave"):
            self.joined.pop(room_id, None)
            self.offered.discard(room_id)
        self.account_data |= sync.account_data
        return sync

    def _take_joined(self, room: Room, told: Any) -> None:
        timeline = told["timeline"]
        if timeline["limited"]:
            self.gaps += 1
            room.heard = []
        elif repeated := {event["event_id"] for event in timeline["events"]} & self.heard:
            self.strays.append(f"{repeated} came twice")
        after = told.get("state_after")
        _apply(room.state, told["state"]["events"] if after is None else after["events"])
        senders = {event["sender"] for event in timeline["events"]}
        if after is None:
            _apply(room.state, [event for event in timeline["events"] if "state_key" in event])
        known = {state_key for kind, state_key in room.state if kind == "m.room.member"}
        if senders - known:
            self.strays.append(f"{senders - known} are not known")
        room.heard += [event["event_id"] for event in timeline["events"]]
        self.heard |= {event["event_id"] for event in timeline["events"]}
        room.counts = told.get("unread_notifications", room.counts)
        room.summary |= told.get("summary", {})
        room.account_data |= {event["type"]: event["content"] for event in told["account_data"]["events"]}
        for event in told["ephemeral"]["events"]:
            if event["type"] == "m.typing":
                room.typing = event["content"]["user_ids"]
            for event_id, kinds in event["content"].items() if event["type"] == "m.receipt" else ():
                for kind, users in kinds.items():
                    room.receipts |= {(user_id, kind): event_id for user_id in users}


def _apply(state: dict[Slot, str], events: list[Any]) -> None:
    for event in events:
        state[event["type"], event["state_key"]] = event["event_id"]
