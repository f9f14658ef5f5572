"""Workers that evaluate push rules, and what they have noted of events."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from homeserver.core.ids import EventId, RoomId, UserId
from homeserver.core.pdu import Pdu
from homeserver.core.push_rules.rule import PushRule, PushRuleKind
from homeserver.services.push.counts import NotificationCounts, UnreadCounts
from homeserver.services.push.rule_sets import RuleSets
from homeserver.services.push.rules import PushRules
from homeserver.services.rooms.drafts import AddedEvents, Draft, PushedRoom, PushOutcome
from homeserver.services.rooms.push_evaluation import PushEvaluation
from storage.database import measure_database
from storage.receipts import ReceiptRow, upsert_receipts
from storage.rooms import get_room
from storage.users import insert_user
from tests.rooms.workers import SERVER, Worker

CAROL = UserId("@carol:example.org")


@dataclass
class MeasuredEvaluation:
    """Evaluates push rules, and counts the statements that each call has taken."""

    evaluation: PushEvaluation
    statements: list[int] = field(default_factory=list)

    async def evaluate(self, room: PushedRoom, events: Sequence[Pdu]) -> Sequence[PushOutcome]:
        """One outcome for each event."""
        with measure_database() as usage:
            outcomes = await self.evaluation.evaluate(room, events)
        self.statements.append(usage.statements)
        return outcomes


@dataclass
class PushWorker(Worker):
    """A process of a server that evaluates push rules."""

    rule_sets: RuleSets = field(init=False)
    rules: PushRules = field(init=False)
    measured: MeasuredEvaluation = field(init=False)

    def __post_init__(self) -> None:
        self.rule_sets = RuleSets(db=self.db)
        self.rules = PushRules(db=self.db, bus=self.bus, rule_sets=self.rule_sets)
        evaluation = PushEvaluation(db=self.db, server_name=SERVER, rule_sets=self.rule_sets)
        self.push = self.measured = MeasuredEvaluation(evaluation)
        super().__post_init__()

    async def register(self, *user_ids: UserId) -> None:
        """Makes accounts."""
        async with self.db.connection() as conn:
            for user_id in user_ids:
                await insert_user(conn, user_id, password_hash=None, created_ts=0)

    async def put_rule(self, user_id: UserId, kind: PushRuleKind, rule_id: str, *actions: Any, **body: Any) -> None:
        """Gives a user a rule."""
        rule = PushRule.parse(kind, rule_id, {"actions": list(actions), **body})
        await self.rules.put_rule(user_id, rule)

    async def statements_of(self, room_id: RoomId, *drafts: Draft) -> int:
        """How many statements the evaluation took when events were added."""
        await self.add(room_id, *drafts)
        return self.measured.statements[-1]

    async def exceptions_of(self, added: AddedEvents) -> dict[UserId, tuple[str, bool, bool]]:
        """Those for whom events do something else than for most: the actions, whether they notify and highlight."""
        statement = "SELECT * FROM event_push_exceptions WHERE event_nid = ANY ($1::bigint[])"
        async with self.db.connection() as conn:
            rows = await conn.fetch(statement, list(added.event_nids))
        return {UserId(row["user_id"]): (row["actions"], row["notify"], row["highlight"]) for row in rows}

    async def unread(self, room_id: RoomId, user_id: UserId) -> NotificationCounts:
        """What a user has not read of a room."""
        async with self.db.connection() as conn:
            room_nid = (await get_room(conn, room_id)).room_nid
            return (await UnreadCounts().of_rooms(conn, user_id, [room_nid]))[room_nid][0].total


async def read_upto(worker: PushWorker, room_id: RoomId, user_id: UserId, event_nid: int) -> None:
    """Puts a receipt that regards no threads on an event."""
    async with worker.db.connection() as conn:
        receipt = ReceiptRow(
            room_nid=(await get_room(conn, room_id)).room_nid,
            user_id=user_id,
            receipt_type="m.read",
            thread_id=None,
            event_id=EventId(f"$event{event_nid}"),
            event_nid=event_nid,
            topological=0,
            receipt_ts=0,
        )
        await upsert_receipts(conn, [receipt])


def mentioning(*user_ids: UserId, room: bool = False, sender: UserId) -> Draft:
    """A message that mentions users, or the room."""
    mentions: dict[str, Any] = {"user_ids": list(user_ids), **({"room": True} if room else {})}
    content = {"msgtype": "m.text", "body": "hello", "m.mentions": mentions}
    return Draft(type="m.room.message", sender=sender, content=content)
