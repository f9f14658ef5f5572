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


ALLOWED: Final[tuple[Allowed, ...]] = (
    Allowed(
        "events of the first client-server API",
        "Synapse repeats members of `unsigned` and the sender beside them, as r0 had it; the specification has not.",
        place=r"(?<!unsigned)\.(age|user_id|prev_content|replaces_state|redacted_because|prev_sender)$",
        ours="^nothing$",
    ),
    Allowed(
        "the age of events",
        "It is optional, and grows while a client keeps the event: this server gives it with timelines only.",
        place=r"\.unsigned\.age$",
        ours="^nothing$",
    ),
    Allowed(
        "rooms of events in syncs",
        "The room is known from the place; this server's form of an event is the same everywhere.",
        request="GET /sync",
        place=r"\.(timeline|state|state_after)\.events(\[\d+\]|\.[^.].*)\.room_id$",
        synapse="^nothing$",
    ),
    Allowed(
        "power levels beyond the specification",
        "`historical` is of a proposal that was withdrawn; `m.call.invite` of one that is not in the specification.",
        place=r"\.(historical|m\.call\.invite)$",
        ours="^nothing$",
    ),
    Allowed(
        "counts of keys",
        "This server says nothing of one-time keys to devices that have none.",
        place=r"^\.device_(one_time_keys_count|unused_fallback_key_types)$",
        ours="^nothing$",
    ),
    Allowed(
        "summaries without lazy loading",
        "Synapse leaves counts and heroes out where members are not loaded lazily; the specification does not say so.",
        place=r"\.summary\.m\.(joined_member_count|invited_member_count|heroes)$",
        synapse="^nothing$",
    ),
    Allowed(
        "errors without a code of their own",
        "Synapse says M_UNKNOWN where the specification has a code for what is wrong.",
        place=r"^\.errcode$",
        synapse="M_UNKNOWN",
        ours="M_(BAD_JSON|INVALID_PARAM|MISSING_PARAM|NOT_JSON)",
    ),
    Allowed(
        "wrong types",
        "Synapse calls a wrong type an invalid parameter in places; M_BAD_JSON is for members with invalid values.",
        place=r"^\.errcode$",
        synapse="M_INVALID_PARAM",
        ours="M_BAD_JSON",
    ),
    Allowed(
        "errors inside Synapse",
        "A malformed request is answered with 400 here.",
        place=r"^\(status\)$",
        synapse="^500 ",
        ours="^400 ",
    ),
    Allowed(
        "rules of withdrawn conditions",
        "The specification has replaced rules that look for names in texts by `m.mentions`.",
        place=r"\.\.m\.rule\.(contains_display_name|roomnotif|contains_user_name)$",
        ours="^nothing$",
    ),
    Allowed(
        "a kind of push rules beyond the specification",
        "`postcontent` is of a proposal.",
        place=r"\.postcontent$",
        ours="^nothing$",
    ),
    Allowed(
        "proposals that Synapse tries",
        "Names with a prefix are not of the specification.",
        place=r"\.(org\.matrix|io\.element|com\.beeper|uk\.[a-z]+|fi\.mau)\.[^|]*$",
        ours="^nothing$",
    ),
)
