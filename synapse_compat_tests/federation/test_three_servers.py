"""A Synapse and two servers of ours in one room.

https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import count

import pytest

from homeserver.config.schema import KeyServerConfig
from homeserver.core.ids import ServerName
from synapse_compat_tests.federation.conftest import NewHeliograph
from synapse_compat_tests.federation.rooms import until_agreed
from synapse_compat_tests.federation.servers import HastyClock, OurSide, Side, SynapseSide
from tests.federation.servers.rooms import (
    act,
    join,
    set_state,
    try_join,
    until_content,
    until_membership,
    until_seen,
)
from tests.real_client import Client

_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Three:
    """Alice is a user of our first server, Bob of the Synapse, Carol of our second server."""

    first: OurSide
    synapse: SynapseSide
    second: OurSide
    alice: Client
    bob: Client
    carol: Client

    @property
    def clients(self) -> list[Client]:
        """All of them."""
        return [self.alice, self.bob, self.carol]

    @property
    def places(self) -> list[tuple[Side, Client]]:
        """Each with the server."""
        return [(self.first, self.alice), (self.synapse, self.bob), (self.second, self.carol)]


@pytest.fixture(scope="module")
async def hasty_sides(new_heliograph: NewHeliograph, synapse_side: SynapseSide) -> AsyncIterator[list[OurSide]]:
    """Two servers of ours that soon try again what has failed; the second trusts the Synapse as a notary."""
    trusted = (KeyServerConfig(server_name=ServerName(synapse_side.name)),)
    async with (
        new_heliograph(clock=HastyClock(speed=20)) as first,
        new_heliograph(clock=HastyClock(speed=20), trusted_key_servers=trusted) as second,
    ):
        yield [first, second]


@pytest.fixture
async def three(hasty_sides: list[OurSide], synapse_side: SynapseSide) -> AsyncIterator[Three]:
    """Users who do not know each other yet."""
    first, second = hasty_sides
    number = next(_numbers)
    async with (
        first.user(f"ann{number}") as alice,
        synapse_side.user(f"ben{number}") as bob,
        second.user(f"cat{number}") as carol,
    ):
        yield Three(first, synapse_side, second, alice, bob, carol)
        for side in (first, synapse_side, second):
            side.line.mend()


async def until_all_hear_all(three: Three, room_id: str, occasion: str) -> None:
    """Everybody says something, and waits until everybody has heard it."""
    for speaker in three.clients:
        await speaker.send(room_id, f"{occasion}, says {speaker.user_id}")
    for listener in three.clients:
        await until_seen(listener, room_id, *(f"{occasion}, says {speaker.user_id}" for speaker in three.clients))


@pytest.mark.parametrize("host", [0, 1, 2])
async def test_the_last_joins_through_a_guest(three: Three, host: int) -> None:
    """Whoever made the room, the third server joins it through the second one."""
    (home, alice), (middle, bob), (_, carol) = three.places[host:] + three.places[:host]
    room_id = await alice.create_room(preset="public_chat")
    await join(bob, room_id, home.name)
    await until_membership(alice, room_id, bob.user_id, "join")
    # A Synapse lets nobody in until it knows all members itself.
    await until_agreed(room_id, [alice, bob])
    await join(carol, room_id, middle.name)
    for client in three.clients:
        await until_membership(client, room_id, carol.user_id, "join")
    await until_all_hear_all(three, room_id, "hello")
    await until_agreed(room_id, three.clients)


@pytest.mark.parametrize("away", [0, 1, 2])
async def test_who_was_cut_off_hears_of_everything(three: Three, away: int) -> None:
    """The others go on without it, with state that depends on one another."""
    (side, lonely), (_, one), (_, other) = three.places[away:] + three.places[:away]
    room_id = await one.create_room(
        preset="public_chat", room_version="11", power_level_content_override={"state_default": 0}
    )
    for client in (other, lonely):
        await join(client, room_id, one.user_id.partition(":")[2])
        await until_membership(one, room_id, client.user_id, "join")
    await until_agreed(room_id, three.clients)
    side.line.cut()
    for number in range(15):
        for speaker, watcher in ((one, other), (other, one)):
            await set_state(speaker, room_id, "m.room.topic", {"topic": f"{number} of {speaker.user_id}"})
            await until_content(watcher, room_id, "m.room.topic", {"topic": f"{number} of {speaker.user_id}"})
    await lonely.send(room_id, "does anybody hear me?")
    await until_seen(other, room_id, "does anybody hear me?")
    side.line.mend()
    await until_all_hear_all(three, room_id, "mended")
    # Which topic it is depends on whose clock is ahead, and on what was known of when somebody spoke.
    await until_agreed(room_id, three.clients)


@pytest.mark.parametrize("version", ["10", "12"])
@pytest.mark.parametrize("guest", [1, 2])
async def test_a_guest_refers_to_whoever_can_vouch(three: Three, version: str, guest: int) -> None:
    """A restricted room is joined through a server that cannot let anybody in, and then through one that can."""
    alice, (middle, bob), (_, carol) = three.alice, three.places[guest], three.places[3 - guest]
    club = await alice.create_room(preset="public_chat", room_version=version)
    allow = [{"type": "m.room_membership", "room_id": club}]
    room_id = await alice.create_room(
        preset="private_chat",
        room_version=version,
        power_level_content_override={"invite": 50},
        initial_state=[
            {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "restricted", "allow": allow}}
        ],
    )
    for client in (bob, carol):
        await join(client, club, three.first.name)
    for client in (bob, carol):
        await until_membership(alice, club, client.user_id, "join")
    await join(bob, room_id, three.first.name)
    await until_membership(alice, room_id, bob.user_id, "join")
    if version == "12":
        # In older rooms the room id says where else to ask.
        assert (await try_join(carol, room_id, middle.name)).status in (400, 403, 404, 502)
    await join(carol, room_id, middle.name, three.first.name)
    await until_membership(alice, room_id, carol.user_id, "join")
    await until_all_hear_all(three, room_id, "inside")
    await until_agreed(room_id, three.clients)


async def test_a_synapse_vouches_for_keys(three: Three) -> None:
    """The server of some events in a room cannot be asked for its key; the Synapse knows it, and is trusted."""
    room_id = await three.bob.create_room(preset="public_chat")
    await join(three.alice, room_id, three.synapse.name)
    await three.alice.send(room_id, "signed")
    await until_seen(three.bob, room_id, "signed")
    three.first.line.cut()
    await join(three.carol, room_id, three.synapse.name)
    await until_membership(three.carol, room_id, three.alice.user_id, "join")
    three.first.line.mend()
    # Until it knows of Carol, the first server tells hers nothing.
    await until_membership(three.alice, room_id, three.carol.user_id, "join")
    await until_all_hear_all(three, room_id, "mended")
    await until_agreed(room_id, three.clients)


async def test_a_ban_reaches_everybody(three: Three) -> None:
    room_id = await three.bob.create_room(preset="public_chat")
    for client in (three.alice, three.carol):
        await join(client, room_id, three.synapse.name)
        await until_membership(three.bob, room_id, client.user_id, "join")
    await until_membership(three.alice, room_id, three.carol.user_id, "join")
    await act(three.bob, "ban", room_id, user_id=three.carol.user_id)
    for client in (three.alice, three.bob):
        await until_membership(client, room_id, three.carol.user_id, "ban")
    assert (await try_join(three.carol, room_id, three.first.name, three.synapse.name)).status == 403
    await until_agreed(room_id, [three.alice, three.bob])
