"""Policy servers: what they do not sign is not shown, and is not sent by this server's users."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from homeserver.core.errors import MatrixError, RemoteRefused, RemoteUnavailable
from homeserver.core.ids import EventId, ServerName
from homeserver.core.pdu import Pdu
from homeserver.core.signing import SigningKey, sign_event, verify_event
from homeserver.services.rooms.drafts import Draft
from tests.rooms.incoming.homeserver import Homeserver, room_with_another_server
from tests.rooms.incoming.remote_room import RemoteRoom
from tests.rooms.workers import ALICE, Worker, message

POLICE = ServerName("elsewhere.org")
POLICY_KEY = SigningKey.from_seed("policy_server", b"p" * 32)


@dataclass
class Police:
    """A policy server that refuses messages with a certain word; it satisfies `PolicyServers`."""

    asked: list[EventId] = field(default_factory=list)
    is_away: bool = False

    async def sign(self, via: ServerName, pdu: Pdu) -> Mapping[str, Any]:
        self.asked.append(pdu.event_id)
        if self.is_away:
            raise RemoteUnavailable("away")
        if "spam" in str(pdu.content.get("body")):
            raise RemoteRefused("No spam here", remote_errcode="M_FORBIDDEN", status=400)
        signed = sign_event({**pdu.json, "signatures": {}}, via, POLICY_KEY, pdu.room_version)
        signatures: Mapping[str, Any] = signed["signatures"]
        return signatures


@pytest.fixture
def police() -> Police:
    return Police()


@pytest.fixture
def homeserver(worker: Worker, police: Police) -> Homeserver:
    return Homeserver(worker, policy_servers=police)


async def room_with_policy(homeserver: Homeserver, **content: Any) -> RemoteRoom:
    remote = await room_with_another_server(homeserver)
    policy = {"via": POLICE, "public_keys": {"ed25519": POLICY_KEY.verify_key.encode()}, **content}
    await homeserver.worker.add(remote.room_id, Draft(type="m.room.policy", sender=ALICE, state_key="", content=policy))
    await homeserver.tell(remote)
    return remote


async def test_what_is_refused_is_soft_failed(homeserver: Homeserver, police: Police) -> None:
    remote = await room_with_policy(homeserver)
    dora = remote.user("dora")
    good, spam = remote.say("good", sender=dora), remote.say("spam", sender=dora)
    after = remote.say("after", sender=dora)
    outcome = await homeserver.push(remote, good, spam, after)
    assert set(outcome.values()) == {None}
    shown = await homeserver.shown(remote.room_id)
    assert good.event_id in shown
    assert after.event_id in shown
    assert spam.event_id not in shown
    assert (await homeserver.get(spam)).soft_failed
    assert len(police.asked) == len(set(police.asked))


async def test_a_signature_that_is_there_is_enough(homeserver: Homeserver, police: Police) -> None:
    remote = await room_with_policy(homeserver)
    pdu = remote.make("m.room.message", {"body": "spam, but signed"}, sender=remote.user("dora"))
    signed = sign_event(pdu.json, POLICE, POLICY_KEY, pdu.room_version)
    outcome = await homeserver.incoming.receive(remote.name, remote.room_id, [signed])
    assert outcome == {pdu.event_id: None}
    assert not police.asked
    assert pdu.event_id in await homeserver.shown(remote.room_id)


async def test_a_policy_server_that_is_away_lets_nothing_in(homeserver: Homeserver, police: Police) -> None:
    remote = await room_with_policy(homeserver)
    police.is_away = True
    said = remote.say("good", sender=remote.user("dora"))
    assert await homeserver.push(remote, said) == {said.event_id: None}
    assert (await homeserver.get(said)).soft_failed


async def test_own_events_are_signed_before_they_are_sent(homeserver: Homeserver, police: Police) -> None:
    remote = await room_with_policy(homeserver)
    added = await homeserver.worker.add(remote.room_id, message("good"))
    pdu = added.events[0]
    assert verify_event(pdu.json, POLICE, POLICY_KEY.verify_key, pdu.room_version)
    with pytest.raises(RemoteRefused, match="No spam here") as refused:
        await homeserver.worker.add(remote.room_id, message("spam"))
    assert refused.value.body()["errcode"] == "M_FORBIDDEN"
    police.is_away = True
    with pytest.raises(MatrixError):
        await homeserver.worker.add(remote.room_id, message("good again"))
    assert await homeserver.ends(remote.room_id) == {pdu.event_id}


async def test_the_choice_of_a_policy_server_needs_no_signature(homeserver: Homeserver, police: Police) -> None:
    """Else a room could not get rid of one that is gone."""
    remote = await room_with_policy(homeserver)
    police.is_away = True
    none = Draft(type="m.room.policy", sender=ALICE, state_key="", content={})
    await homeserver.worker.add(remote.room_id, none)
    await homeserver.worker.add(remote.room_id, message("free"))
    assert not police.asked


@pytest.mark.parametrize(
    "content",
    [{"via": 5}, {"via": "nowhere.org"}, {"public_keys": {}}, {"public_keys": {"ed25519": "AA"}}, {"public_keys": 5}],
)
async def test_a_policy_that_is_not_valid_is_none(
    homeserver: Homeserver, police: Police, content: dict[str, Any]
) -> None:
    """Nor is one whose server has nobody in the room."""
    remote = await room_with_policy(homeserver, **content)
    said = remote.say("spam", sender=remote.user("dora"))
    await homeserver.push(remote, said)
    await homeserver.worker.add(remote.room_id, message("spam"))
    assert said.event_id in await homeserver.shown(remote.room_id)
    assert not police.asked
