"""What events do to the members of their room, by the members' push rules.

The default rules are evaluated once for everybody. Single users are looked at only if the event names them or if they
have rules of their own that it may concern. Users who ignore the sender are known to `add_push_exceptions` alone.

https://spec.matrix.org/v1.19/client-server-api/#push-rules
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from homeserver.core.canonical_json import encode_canonical
from homeserver.core.errors import Forbidden, InvalidParam
from homeserver.core.event_auth.auth_events import CREATE, POWER_LEVELS
from homeserver.core.event_auth.power_levels import PowerLevels
from homeserver.core.ids import ServerName, UserId
from homeserver.core.pdu import Pdu, StateKey
from homeserver.core.push_rules.conditions import PushContext, PushEvent, Recipient
from homeserver.core.push_rules.evaluation import DefaultOutcome, evaluate, evaluate_defaults
from homeserver.core.push_rules.rule import Actions
from homeserver.core.push_rules.rule_set import RuleSet
from homeserver.services.push.rule_sets import RuleSets
from homeserver.services.rooms.drafts import PushedRoom, PushOutcome, PushRecipient
from storage.bounded_cache import BoundedCache
from storage.database import Database
from storage.push_actions import insert_push_actions, list_push_actions
from storage.push_recipients import PushAudience, find_push_audience, list_display_names, list_joined_among

ACTIONS_BYTES_MAX: Final = 1024
_USER_BYTES: Final = 150
"""How long the actions may be that are kept with an event; of longer ones only the essential are kept."""

_NOTHING: Final = "[]"
_NO_AUDIENCE: Final = PushAudience(state_version=0, member_count=0, deviating=frozenset())
_NO_LEVELS: Final = PowerLevels(named={}, users={}, events={}, notifications={})


@dataclass(slots=True)
class _KnownAudience:
    """Whom events in a room concern, and their display names as far as they were asked for."""

    audience: PushAudience
    users_version: int = -1
    display_names: dict[UserId, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _PushedEvent:
    """An event with what the default rules make of it, in the room as it is right before.

    Attributes:
        named: the local users whom the event names, not the sender.
        came: the memberships of local users that events before it in the same call have changed.
    """

    pdu: Pdu
    event: PushEvent
    context: PushContext
    default: DefaultOutcome
    named: frozenset[UserId]
    came: Mapping[UserId, bool]

    def concerns(self, user_id: UserId, joined: Collection[UserId]) -> bool:
        """Whether a user may be notified: whoever is in the room, and whoever is invited to it."""
        if self.pdu.membership == "invite" and self.pdu.state_key == user_id:
            return True
        return self.came.get(user_id, user_id in joined)


class PushEvaluation:
    """Evaluates the push rules of all members of a room."""

    def __init__(self, *, db: Database, server_name: ServerName, rule_sets: RuleSets, users_max: int = 200_000) -> None:
        """Takes its means, and how many users are kept in memory as members of rooms."""
        self._db = db
        self._server_name = server_name
        self._rule_sets = rule_sets
        self._audiences: BoundedCache[int, _KnownAudience] = BoundedCache(
            "push_audiences",
            weight_max=users_max,
            weigh=lambda known: 10 + len(known.audience.deviating),
            bytes_each=_USER_BYTES,
        )
        self._actions_ids: dict[str, int] = {}

    async def evaluate(self, room: PushedRoom, events: Sequence[Pdu]) -> Sequence[PushOutcome]:
        """One outcome for each event, each the successor of the one before. It is asked before they are added.

        Nothing is read from the database if the room's state and its members' rules are known and nobody is named.
        """
        known = await self._audience(room)
        pushed = list(self._evaluate_defaults(room, known.audience, events))
        named = {user_id for each in pushed for user_id in each.named} - known.audience.deviating
        came = {user_id for each in pushed for user_id in each.came}
        joined = known.audience.deviating | await self._joined_among(room, named)
        rule_sets = {
            user_id: rule_set
            for user_id, rule_set in (await self._rule_sets.load(known.audience.deviating | named | came)).items()
            if any(rule_set.may_deviate(each.event) for each in pushed)
        }
        await self._load_display_names(room, known, rule_sets)
        return [
            PushOutcome(
                actions_id=await self._actions_id(each.default.everyone),
                exceptions=list(self._exceptions(each, joined, rule_sets, known.display_names)),
            )
            for each in pushed
        ]

    async def _audience(self, room: PushedRoom) -> _KnownAudience:
        if room.room_nid is None:
            return _KnownAudience(_NO_AUDIENCE)
        known = self._audiences.get(room.room_nid)
        users_version = self._rule_sets.users_version
        if known is None or known.audience.state_version != room.state_version or known.users_version != users_version:
            async with self._db.connection() as conn:
                audience = await find_push_audience(conn, room.room_nid)
            known = _KnownAudience(audience or _NO_AUDIENCE, users_version)
            self._audiences.put(room.room_nid, known)
        return known

    def _evaluate_defaults(
        self, room: PushedRoom, audience: PushAudience, events: Iterable[Pdu]
    ) -> Iterator[_PushedEvent]:
        """Evaluates the default rules of one event after the other, each in the room as those before have left it."""
        state = dict(room.state)
        member_count = audience.member_count
        came: dict[UserId, bool] = {}
        for pdu in events:
            context = PushContext(member_count, _power_levels(state))
            event = PushEvent.of_pdu(pdu)
            default = evaluate_defaults(event, context)
            named = frozenset(self._local_users(default.named - {pdu.sender}))
            yield _PushedEvent(pdu, event, context, default, named, dict(came))
            slot = pdu.state_slot
            if slot is None:
                continue
            if pdu.membership is not None:
                is_joined = pdu.membership == "join"
                before = state.get(slot)
                member_count += is_joined - (before is not None and before.membership == "join")
                came.update(dict.fromkeys(self._local_users([slot[1]]), is_joined))
            state[slot] = pdu

    def _local_users(self, user_ids: Iterable[str]) -> Iterator[UserId]:
        """Those of some texts that are ids of users of this server."""
        suffix = f":{self._server_name}"
        for text in user_ids:
            if text.endswith(suffix):
                try:
                    user_id = UserId.parse(text)
                except InvalidParam:
                    continue
                if user_id.server_name == self._server_name:
                    yield user_id

    async def _joined_among(self, room: PushedRoom, user_ids: Collection[UserId]) -> frozenset[UserId]:
        if room.room_nid is None or not user_ids:
            return frozenset()
        async with self._db.connection() as conn:
            return await list_joined_among(conn, room.room_nid, user_ids)

    async def _load_display_names(
        self, room: PushedRoom, known: _KnownAudience, rule_sets: Mapping[UserId, RuleSet]
    ) -> None:
        """Reads the display names of those who have rules that ask for them."""
        missing = [
            user_id
            for user_id, rule_set in rule_sets.items()
            if rule_set.reads_display_name and user_id not in known.display_names
        ]
        if room.room_nid is None or not missing:
            return
        async with self._db.connection() as conn:
            names = await list_display_names(conn, room.room_nid, missing)
        known.display_names.update((user_id, names.get(user_id)) for user_id in missing)

    def _exceptions(
        self,
        each: _PushedEvent,
        joined: Collection[UserId],
        rule_sets: Mapping[UserId, RuleSet],
        display_names: Mapping[UserId, str | None],
    ) -> Iterator[PushRecipient]:
        """Those for whom an event does something else than for most."""
        usual, sender = _stored_actions(each.default.everyone), each.pdu.sender
        if each.pdu.is_state and usual is not None and sender.server_name == self._server_name:
            # By messages users also show what they have read, so their own are never counted; by state they do not.
            yield PushRecipient(sender, _NOTHING, notify=False, highlight=False)
        for user_id in rule_sets.keys() | each.named:
            if user_id == sender or not each.concerns(user_id, joined):
                continue
            rule_set = rule_sets.get(user_id)
            if rule_set is None:
                actions = each.default.for_user(user_id)
            else:
                recipient = Recipient(user_id, display_names.get(user_id))
                actions = evaluate(rule_set, each.event, each.context, recipient)
            stored = _stored_actions(actions)
            if stored != usual:
                highlight = stored is not None and actions is not None and actions.highlight
                yield PushRecipient(user_id, stored or _NOTHING, notify=stored is not None, highlight=highlight)

    async def _actions_id(self, everyone: Actions | None) -> int | None:
        actions = _stored_actions(everyone)
        if everyone is None or actions is None:
            return None
        if actions not in self._actions_ids:
            async with self._db.connection() as conn:
                self._actions_ids.update(await list_push_actions(conn))
                while actions not in self._actions_ids:
                    await insert_push_actions(conn, actions, highlight=everyone.highlight)
                    self._actions_ids.update(await list_push_actions(conn))
        return self._actions_ids[actions]


def _power_levels(state: Mapping[StateKey, Pdu]) -> PowerLevels:
    """The power levels in force; those of nobody if the events that say them have no usable form."""
    create = state.get(CREATE)
    if create is None:
        return _NO_LEVELS
    try:
        return PowerLevels.in_force(state.get(POWER_LEVELS), create)
    except Forbidden:
        return _NO_LEVELS


def _stored_actions(actions: Actions | None) -> str | None:
    """Actions as they are kept with an event, as JSON; None if nobody is notified."""
    if actions is None or not actions.notify:
        return None
    encoded = encode_canonical(list(actions.json)).decode()
    if len(encoded.encode()) <= ACTIONS_BYTES_MAX:
        return encoded
    highlight = [{"set_tweak": "highlight"}] if actions.highlight else []
    return encode_canonical(["notify", *highlight]).decode()
