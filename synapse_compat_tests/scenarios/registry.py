"""The scenarios: plain functions that play on one server, listed as they are declared."""

from collections.abc import Awaitable, Callable
from typing import Final

from synapse_compat_tests.recording import Stage

Scenario = Callable[[Stage], Awaitable[None]]

SCENARIOS: Final[dict[str, Scenario]] = {}


def scenario(play: Scenario) -> Scenario:
    """Declares a scenario; its name is that of the function."""
    name = play.__name__  # type: ignore[attr-defined]
    assert name not in SCENARIOS, f"there are two scenarios {name}"
    SCENARIOS[name] = play
    return play
