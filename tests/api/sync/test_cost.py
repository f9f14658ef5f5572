"""What syncs cost in statements: the same however many rooms there are, and next to nothing where nothing happened."""

from typing import Any

import pytest

from storage.database import measure_database
from tests.api.server import Site
from tests.api.sync.api import Device, lazy_filter, register

ROOMS = 40


async def statements(device: Device, **query: Any) -> int:
    """How many statements a sync takes that is remembered by nobody; the second time, when memories are filled."""
    await device.peek(**query)
    with measure_database() as usage:
        await device.peek(**query)
    return usage.statements


@pytest.mark.seconds_max(120)
async def test_statements(site: Site, alice: Device, bob: Device) -> None:
    others = await register(site, "dave", "erin")
    one = await alice.create(bob)
    few = await statements(bob, since=None), await statements(bob, since=None, filter=lazy_filter())
    rooms = [one, *[await alice.create(bob, *others, name=f"{number}") for number in range(ROOMS)]]
    for room_id in rooms:
        await alice.send(room_id)
    many = await statements(bob, since=None), await statements(bob, since=None, filter=lazy_filter())
    # Aggregations are read where timelines are limited, which they were not at first.
    assert all(after <= before + 6 for before, after in zip(few, many, strict=True))
    assert max(many) <= 22
    assert await statements(bob, since="s0") <= 28
    # Each may have two more than it needs: whose session it is, and what is new for everybody.
    await bob.caught_up()
    assert await statements(bob) <= 2 + 2
    await alice.send(rooms[3])
    assert await statements(bob) <= 4 + 2
    assert await statements(bob, filter=lazy_filter()) <= 4 + 2
    for room_id in rooms:
        await alice.send(room_id)
    assert await statements(bob) <= 4 + 2
    await bob.caught_up()
    await alice.type(rooms[3])
    assert await statements(bob) <= 4 + 2
    await bob.caught_up()
    for room_id in rooms:
        await alice.rename(room_id, "Kitchen")
    assert await statements(bob) <= 7 + 2
