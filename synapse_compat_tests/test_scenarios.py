"""Each scenario is played on a real Synapse and on this server; what they answer is compared field by field.

Differences that the specification allows are listed in `allowed.py`, each with its reason.
"""

from importlib import import_module
from pkgutil import iter_modules

import aiohttp
import pytest

from synapse_compat_tests import scenarios
from synapse_compat_tests.allowed import ALLOWED
from synapse_compat_tests.comparison import differences
from synapse_compat_tests.conftest import SERVER_NAME, Servers
from synapse_compat_tests.recording import Recording, ScenarioEnded, Stage
from synapse_compat_tests.scenarios.registry import SCENARIOS, Scenario

for module in iter_modules(scenarios.__path__):
    import_module(f"{scenarios.__name__}.{module.name}")


async def play(scenario: Scenario, name: str, url: str) -> Recording:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http:
        stage = Stage(url, SERVER_NAME, name, http)
        try:
            await scenario(stage)
        except ScenarioEnded as ended:
            stage.recording.failure = f"after request {len(stage.recording.exchanges)}: {ended}"
        return stage.recording


@pytest.mark.seconds_max(240)
@pytest.mark.parametrize("name", SCENARIOS)
async def test_scenario(name: str, servers: Servers) -> None:
    synapse = await play(SCENARIOS[name], name, servers.synapse_url)
    ours = await play(SCENARIOS[name], name, servers.our_url)
    assert synapse.failure is None, "the scenario does not even play on Synapse"
    servers.played.add(name)
    found = []
    for difference in differences(synapse, ours):
        allowed = next((rule for rule in ALLOWED if rule.covers(name, difference)), None)
        if allowed is None:
            found.append(str(difference))
        else:
            servers.met.add(allowed.name)
    assert not found, f"{len(found)} differences\n" + "\n".join(found)


async def test_every_allowed_difference_is_still_one(servers: Servers) -> None:
    if servers.played != set(SCENARIOS):
        pytest.skip("not all scenarios have been played")
    assert [rule.name for rule in ALLOWED if rule.name not in servers.met] == []
