"""People with encrypted devices on a Synapse and on a Heliograph."""

from collections.abc import AsyncIterator

import pytest

from synapse_compat_tests.federation.conftest import (  # noqa: F401 (fixtures, which pytest finds by their names here)
    NewHeliograph,
    authority,
    certificate,
    compat_folder,
    new_heliograph,
    nothing_fails,
    our_side,
    resident,
    synapse_side,
)
from synapse_compat_tests.federation.servers import HastyClock, OurSide, Side, SynapseSide
from tests.clients.encryption.conftest import program  # noqa: F401 (a fixture)
from tests.clients.encryption.stage import Stage
from tests.clients.javascript import JavaScript


@pytest.fixture
async def stage(
    program: JavaScript,  # noqa: F811
    resident: str,  # noqa: F811
    our_side: OurSide,  # noqa: F811
    synapse_side: SynapseSide,  # noqa: F811
) -> AsyncIterator[Stage]:
    """One of both servers at home, the other one away: each test is played both ways."""
    async for made in _stage(program, resident, our_side, synapse_side):
        yield made


@pytest.fixture
async def fast_stage(
    program: JavaScript,  # noqa: F811
    resident: str,  # noqa: F811
    new_heliograph: NewHeliograph,  # noqa: F811
    synapse_side: SynapseSide,  # noqa: F811
) -> AsyncIterator[Stage]:
    """The same with a Heliograph of a test's own, which tries again soon what has failed."""
    async with new_heliograph(clock=HastyClock(60)) as ours:
        async for made in _stage(program, resident, ours, synapse_side):
            yield made


async def _stage(program: JavaScript, resident: str, ours: Side, synapse: Side) -> AsyncIterator[Stage]:  # noqa: F811
    home, away = (ours, synapse) if resident == "ours" else (synapse, ours)
    made = Stage(program, home, away)
    yield made
    await made.close()
