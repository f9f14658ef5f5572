"""Policy servers: a room may name a server that looks at each event, and whose signature says that it may be shown.

The signature decides about no authorization rule. Events of others that lack it are soft-failed, events of this
server's users are not sent.

https://spec.matrix.org/v1.19/server-server-api/#policy-servers
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from homeserver.core.errors import Forbidden, InvalidParam, MatrixError, RemoteRefused, RemoteUnavailable
from homeserver.core.ids import EventId, RoomId, ServerName
from homeserver.core.pdu import Pdu, StateKey
from homeserver.core.signing import VerifyKey, verify_event
from homeserver.services.remote import PolicyServers
from homeserver.services.rooms.gate import POLICY_KEY_ID
from storage.bounded_cache import BoundedCache
from storage.database import Connection, Database
from storage.events import list_pdus
from storage.incoming_rooms import find_policy_nid, has_joined_user

POLICY: Final[StateKey] = ("m.room.policy", "")

_ANSWER_SECONDS_MAX: Final = 10.0
_SIDE_BY_SIDE: Final = 10
_REFUSALS: Final = frozenset((400, 403))


@dataclass(frozen=True, slots=True)
class PolicyServer:
    """The policy server that a room uses, with its key."""

    name: ServerName
    key: VerifyKey

    def has_signed(self, pdu: Pdu) -> bool:
        """Whether an event bears its signature."""
        return verify_event(pdu.json, self.name, self.key, pdu.room_version)


def needs_no_signature(pdu: Pdu) -> bool:
    """Whether an event is one that policy servers are never asked about: that by which a room chooses them."""
    return pdu.state_slot == POLICY


class EventPolicy(Protocol):
    """Has events that are made here signed by the room's policy server."""

    async def sign_own(self, room_nid: int, room_id: RoomId, policy: Pdu, events: Sequence[Pdu]) -> Sequence[Pdu]:
        """Events with what has to be added to their signatures.

        Args:
            room_nid: the room.
            room_id: likewise.
            policy: the `m.room.policy` event of its current state.
            events: signed by this server.

        Raises:
            RemoteRefused: the policy server does not want an event.
            RemoteUnavailable, Forbidden: it cannot be asked, or its signature is wrong.
        """
        ...


class NoEventPolicy:
    """Asks nobody: for a server that does not federate."""

    async def sign_own(self, room_nid: int, room_id: RoomId, policy: Pdu, events: Sequence[Pdu]) -> Sequence[Pdu]:
        """The events as they are."""
        return events


class PolicyReview:
    """Finds out which policy servers rooms use, and asks them."""

    def __init__(self, *, db: Database, servers: PolicyServers, answers_max: int = 20_000) -> None:
        """Takes its means, and how many answers are kept in memory."""
        self._db = db
        self._servers = servers
        # The signature; empty where it was refused.
        self._answers: BoundedCache[tuple[EventId, ServerName, str], str] = BoundedCache(
            "policy_answers", weight_max=answers_max
        )

    async def find_server(self, conn: Connection, room_nid: int, policy: Pdu) -> PolicyServer | None:
        """The policy server that a room uses by its `m.room.policy`; None if that is not valid, or not in the room."""
        keys = policy.content.get("public_keys")
        if not isinstance(keys, Mapping):
            return None
        try:
            name = ServerName.parse(policy.content.get("via"))
            key = VerifyKey.parse(key_id=POLICY_KEY_ID, key_base64=keys.get("ed25519"))
        except InvalidParam:
            return None
        return PolicyServer(name, key) if await has_joined_user(conn, room_nid, name) else None

    async def current(self, conn: Connection, room_nid: int) -> PolicyServer | None:
        """The policy server that a room uses now; None if it uses none."""
        event_nid = await find_policy_nid(conn, room_nid)
        if event_nid is None:
            return None
        return await self.find_server(conn, room_nid, (await list_pdus(conn, [event_nid]))[event_nid])

    async def review(self, server: PolicyServer, events: Sequence[Pdu]) -> list[Pdu | None]:
        """Events with the policy server's signature; None for each that it does not want or cannot be asked about."""
        return [pdu if isinstance(pdu, Pdu) else None for pdu in await self._all_signed(server, events)]

    async def sign_own(self, room_nid: int, room_id: RoomId, policy: Pdu, events: Sequence[Pdu]) -> Sequence[Pdu]:
        """Has events that are made here signed; see `EventPolicy`."""
        async with self._db.connection() as conn:
            server = await self.find_server(conn, room_nid, policy)
        if server is None:
            return events
        signed = []
        for outcome in await self._all_signed(server, events):
            if not isinstance(outcome, Pdu):
                raise outcome
            signed.append(outcome)
        return signed

    async def _all_signed(self, server: PolicyServer, events: Sequence[Pdu]) -> Sequence[Pdu | MatrixError]:
        """Asks about events side by side: each with the signature, or why it has none."""
        places = asyncio.Semaphore(_SIDE_BY_SIDE)

        async def sign(pdu: Pdu) -> Pdu | MatrixError:
            async with places:
                try:
                    return await self._signed(server, pdu)
                except (RemoteRefused, RemoteUnavailable, Forbidden) as error:
                    return error

        async with asyncio.TaskGroup() as tasks:
            outcomes = [tasks.create_task(sign(pdu)) for pdu in events]
        return [outcome.result() for outcome in outcomes]

    async def _signed(self, server: PolicyServer, pdu: Pdu) -> Pdu:
        """An event with the policy server's signature, which it may have already.

        Raises:
            RemoteRefused: the policy server refuses it.
            RemoteUnavailable: it cannot be asked in time.
            Forbidden: its signature is wrong, or it has refused the event before.
        """
        if needs_no_signature(pdu) or server.has_signed(pdu):
            return pdu
        question = (pdu.event_id, server.name, server.key.encode())
        signature = self._answers.get(question)
        if signature is None:
            try:
                signature = await self._ask(server, pdu)
            except RemoteRefused as error:
                if error.status in _REFUSALS:
                    self._answers.put(question, "")
                raise
            self._answers.put(question, signature)
        signed = _with_signature(pdu, server.name, signature)
        if not signature or not server.has_signed(signed):
            raise Forbidden("The room's policy server has not signed the event")
        return signed

    async def _ask(self, server: PolicyServer, pdu: Pdu) -> str:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS_MAX):
                answer = await self._servers.sign(server.name, pdu)
        except TimeoutError as error:
            raise RemoteUnavailable("The room's policy server does not answer") from error
        by_server = answer.get(server.name)
        signature = by_server.get(POLICY_KEY_ID) if isinstance(by_server, Mapping) else None
        return signature if isinstance(signature, str) else ""


def _with_signature(pdu: Pdu, server_name: ServerName, signature: str) -> Pdu:
    """An event with a policy server's signature beside those that it has."""
    signatures: Mapping[str, Any] = pdu.json["signatures"]
    by_server = {**signatures.get(server_name, {}), POLICY_KEY_ID: signature}
    json = {**pdu.json, "signatures": {**signatures, server_name: by_server}}
    return Pdu.trusted(json, pdu.event_id, pdu.room_version, pdu.room_id)
