"""The differences between Synapse and this server that are right: the specification allows both, or fixes ours.

A rule covers a difference if all its patterns are found in it. Rules that cover nothing any more fail the tests.
"""

import re
from dataclasses import dataclass
from typing import Final

from synapse_compat_tests.comparison import Difference


@dataclass(frozen=True, slots=True)
class Allowed:
    """A difference that is right.

    Attributes:
        name: what it is called.
        reason: why it is right.
        scenario: a pattern for the name of the scenario.
        request: a pattern for who asks what.
        place: a pattern for the place in the answer.
        synapse: a pattern for what Synapse answers there.
        ours: a pattern for what this server answers there.
    """

    name: str
    reason: str
    scenario: str = ""
    request: str = ""
    place: str = ""
    synapse: str = ""
    ours: str = ""

    def covers(self, scenario: str, difference: Difference) -> bool:
        """Whether a difference is this one."""
        pairs = (
            (self.scenario, scenario),
            (self.request, difference.request),
            (self.place, difference.place),
            (self.synapse, difference.synapse),
            (self.ours, difference.ours),
        )
        return all(re.search(pattern, text) for pattern, text in pairs)


ALLOWED: Final[tuple[Allowed, ...]] = ()
