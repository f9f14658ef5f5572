"""What passes and waits to be told to other servers, in the memory of the worker that serves them.

Of what changes several times while it waits, only the newest is told. A server that does not answer has nothing waiting
here: from which position on it has missed what passes is noted in the database.

https://spec.matrix.org/v1.19/server-server-api/#edus
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, TypeAlias

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.clock import Clock
from homeserver.core.ids import ServerName
from storage.outgoing_edus import PresenceChange, ReceiptChange, TypingChange

Change: TypeAlias = TypingChange | ReceiptChange | PresenceChange
Key: TypeAlias = tuple[str, ...]

WAITING_MAX: Final = 2_000
"""More than this waits for no server; one that is so far behind is told the newest later."""

RECEIPTS_PER_EDU_MAX: Final = 200
PRESENCES_PER_EDU_MAX: Final = 50


@dataclass(frozen=True, slots=True)
class Taken:
    """EDUs in canonical JSON, and the changes that they tell."""

    edus: Sequence[bytes] = ()
    changes: Mapping[Key, Change] = field(default_factory=dict)


class PendingEdus:
    """Changes by server. Nothing here waits for anything."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[ServerName, dict[Key, Change]] = {}
        self._lagging: set[ServerName] = set()
        self._lags_to_note: dict[ServerName, int] = {}
        self._on_news: list[Callable[[ServerName], None]] = []

    def on_news(self, callback: Callable[[ServerName], None]) -> None:
        """Has a function called for each server that something has begun to wait for."""
        self._on_news.append(callback)

    def add(self, destinations: Iterable[ServerName], changes: Sequence[Change]) -> None:
        """Lets changes wait for servers; not for those that lag behind anyway."""
        for destination in destinations:
            if destination in self._lagging or not changes:
                continue
            waiting = self._waiting.setdefault(destination, {})
            for change in changes:
                key = _key(change)
                waiting.pop(key, None)
                waiting[key] = change
            if len(waiting) > WAITING_MAX:
                self.give_up(destination)
                continue
            for callback in self._on_news:
                callback(destination)

    def has(self, destination: ServerName) -> bool:
        """Whether anything waits for a server."""
        return destination in self._waiting

    def take(self, destination: ServerName, *, limit: int) -> Taken:
        """The EDUs that tell a server what waits for it, at most so many. It goes on waiting until `told`."""
        waiting = self._waiting.get(destination, {})
        edus: list[bytes] = []
        taken: dict[Key, Change] = {}
        for edu_type, content, told in _contents(waiting, now_ms=self._clock.now_ms()):
            if len(edus) >= limit:
                break
            edus.append(encode_canonical({"content": content, "edu_type": edu_type}))
            taken.update(told)
        return Taken(edus, taken)

    def told(self, destination: ServerName, taken: Taken) -> None:
        """Says that a server has been told; what has changed since it was taken still waits."""
        waiting = self._waiting.get(destination)
        if waiting is None:
            return
        for key, change in taken.changes.items():
            if waiting.get(key) is change:
                del waiting[key]
        if not waiting:
            del self._waiting[destination]

    def give_up(self, destination: ServerName) -> None:
        """Says that a server cannot be told; it lags behind from what it has not been told on."""
        waiting = self._waiting.pop(destination, None)
        if waiting:
            self._lagging.add(destination)
            oldest = min(change.position for change in waiting.values())
            self._lags_to_note[destination] = min(oldest, self._lags_to_note.get(destination, oldest))

    def lags_to_note(self) -> dict[ServerName, int]:
        """The lags that have to be written down, with the position from which on each server has missed something."""
        return dict(self._lags_to_note)

    def lags_noted(self, lags: Mapping[ServerName, int]) -> None:
        """Says that lags have been written down."""
        for destination, position in lags.items():
            if self._lags_to_note.get(destination) == position:
                del self._lags_to_note[destination]

    def is_lagging(self, destination: ServerName) -> bool:
        """Whether a server has missed something."""
        return destination in self._lagging

    def lag_ended(self, destination: ServerName) -> None:
        """Says that a server is told again."""
        self._lagging.discard(destination)

    def keep_only(self, serves: Callable[[ServerName], bool], *, lagging: Collection[ServerName]) -> None:
        """Forgets the servers that this worker serves no longer, and learns which of its own lag behind."""
        self._waiting = {server: waiting for server, waiting in self._waiting.items() if serves(server)}
        self._lagging = {server for server in {*self._lagging, *lagging} if serves(server)}
        for server in self._lagging:
            self._waiting.pop(server, None)

    def oldest(self) -> int | None:
        """The position of the oldest change that waits, or of which it is not noted that it is missed; None if none."""
        waiting = (change.position for changes in self._waiting.values() for change in changes.values())
        return min([*waiting, *self._lags_to_note.values()], default=None)


def _key(change: Change) -> Key:
    if isinstance(change, TypingChange):
        return ("typing", change.room_id, change.user_id)
    if isinstance(change, ReceiptChange):
        return ("receipt", change.room_id, change.user_id, change.thread_id or "")
    return ("presence", change.user_id)


def _contents(
    waiting: Mapping[Key, Change], *, now_ms: int
) -> Iterable[tuple[str, dict[str, Any], Mapping[Key, Change]]]:
    """The EDUs that tell changes: the type and content of each, with the changes in it."""
    for key, change in waiting.items():
        if isinstance(change, TypingChange):
            content = {"room_id": change.room_id, "user_id": change.user_id, "typing": change.is_typing}
            yield "m.typing", content, {key: change}
    for layer in _layers(waiting):
        yield "m.receipt", _receipts_content(layer.values()), layer
    presences = {key: change for key, change in waiting.items() if isinstance(change, PresenceChange)}
    for chunk in _chunks(presences, PRESENCES_PER_EDU_MAX):
        yield "m.presence", {"push": [_presence_entry(change, now_ms) for change in chunk.values()]}, chunk


def _layers(waiting: Mapping[Key, Change]) -> Iterable[dict[Key, ReceiptChange]]:
    """Receipts in EDUs: one has room for a single receipt of each user in a room, so each thread needs another."""
    layers: list[dict[Key, ReceiptChange]] = []
    threads: dict[Key, int] = {}
    for key, change in waiting.items():
        if isinstance(change, ReceiptChange):
            number = threads[key[:3]] = threads.get(key[:3], -1) + 1
            if number == len(layers):
                layers.append({})
            layers[number][key] = change
    for layer in layers:
        yield from _chunks(layer, RECEIPTS_PER_EDU_MAX)


def _chunks(changes: Mapping[Key, Any], size: int) -> Iterable[dict[Key, Any]]:
    items = iter(changes.items())
    while chunk := dict(islice(items, size)):
        yield chunk


def _receipts_content(receipts: Iterable[ReceiptChange]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for receipt in receipts:
        data: dict[str, Any] = {"ts": receipt.receipt_ts}
        if receipt.thread_id is not None:
            data["thread_id"] = receipt.thread_id
        of_room = content.setdefault(receipt.room_id, {"m.read": {}})
        of_room["m.read"][receipt.user_id] = {"event_ids": [receipt.event_id], "data": data}
    return content


def _presence_entry(change: PresenceChange, now_ms: int) -> dict[str, Any]:
    row = change.presence
    entry: dict[str, Any] = {
        "user_id": row.user_id,
        "presence": row.presence,
        "last_active_ago": 0 if row.last_active_ts is None else max(0, now_ms - row.last_active_ts),
    }
    if row.presence == "online":
        entry["currently_active"] = row.currently_active
    if row.status_msg is not None:
        entry["status_msg"] = row.status_msg
    return entry
