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


EVENTS: Final = (
    Allowed(
        "events of the first client-server API",
        "Synapse repeats members of `unsigned` and the sender beside them, as r0 had it; the specification has not.",
        place=r"(?<!unsigned)\.(age|user_id|prev_content|replaces_state|redacted_because|prev_sender)$",
        ours="^nothing$",
    ),
    Allowed(
        "the age of events",
        "It is optional, and grows while a client keeps the event: this server gives it where the event is not state.",
        place=r"\.unsigned\.age$|\.redacted_because\.unsigned$",
        ours="^nothing$",
    ),
    Allowed(
        "rooms of events in syncs",
        "The room is known from the place; this server's form of an event is the same everywhere.",
        request="GET /sync",
        place=r"\.(events(\[\d+\]|\.[^.].*)|latest_event)\.room_id$",
        synapse="^nothing$",
    ),
    Allowed(
        "what state events replace",
        "The specification says so of every state event; Synapse tells it in timelines only.",
        request="GET /rooms/.*/(state|members)",
        place=r"\.unsigned\.(prev_content|prev_sender|replaces_state)$",
        synapse="^nothing$",
    ),
    Allowed(
        "the name of a redaction",
        "`redacted_by` is not in the specification, which has `redacted_because`.",
        place=r"\.unsigned\.redacted_by$",
        ours="^nothing$",
    ),
    Allowed(
        "memberships in the state of a sync",
        "`unsigned.membership` may be left out, but should be there where possible.",
        request="GET /sync",
        place=r"\.state_after\.events\..*\.unsigned\.membership$",
        synapse="^nothing$",
    ),
    Allowed(
        "transaction ids inside of aggregations",
        "The event is bundled with its root as it is told to everybody.",
        place=r"\.latest_event\.unsigned\.transaction_id$",
        ours="^nothing$",
    ),
)

ROOMS: Final = (
    Allowed(
        "power levels beyond the specification",
        "`historical` is of a proposal that was withdrawn; `m.call.invite` of one that is not in the specification.",
        place=r"\.(historical|m\.call\.invite)$",
        ours="^nothing$",
    ),
    Allowed(
        "one event instead of two",
        "A name or topic that overrides the initial state is sent instead of what it overrides.",
        scenario="^options$",
        place=r"\.m\.room\.topic\|\.unsigned\.replaces_state$",
        ours="^nothing$",
    ),
    Allowed(
        "guests after an upgrade",
        "The old room was closed to guests, so the new one is; Synapse opens it.",
        scenario="^upgrades$",
        place=r"\.m\.room\.guest_access\|\.content\.guest_access$",
        synapse="can_join",
        ours="forbidden",
    ),
    Allowed(
        "canonical aliases without an alias",
        "An empty list says the same as none.",
        scenario="^aliases$",
        place=r"^\.alt_aliases$",
        synapse="^nothing$",
        ours=r"^\[\]$",
    ),
    Allowed(
        "refused initial state",
        "M_INVALID_ROOM_STATE is for initial state that makes a room that cannot be.",
        scenario="^(rooms_that_are_refused|further_creators)$",
        synapse="M_FORBIDDEN|M_UNKNOWN",
        ours="M_INVALID_ROOM_STATE|M_BAD_JSON|M_INVALID_PARAM",
    ),
    Allowed(
        "unbanning strangers",
        "Synapse makes a member event for somebody who never was in the room; there is nothing to unban.",
        request="/unban|/state/m.room.member/%40none.unban|/state/m.room.member/%40none",
        place=r"^\(status\)$",
        synapse="^200$",
        ours="M_BAD_STATE|M_NOT_FOUND",
    ),
    Allowed(
        "memberships that cannot be changed so",
        "The specification names M_FORBIDDEN where somebody is banned or a member, and M_BAD_STATE for unbanning.",
        request="/(invite|kick|unban|join|knock)",
        place=r"^\.errcode$",
        synapse="M_BAD_STATE|M_FORBIDDEN",
        ours="M_FORBIDDEN|M_BAD_STATE",
    ),
    Allowed(
        "memberships of guests",
        "`kind` is not in the specification.",
        place=r"\.content\.kind$",
        synapse='^"guest"$',
        ours="^nothing$",
    ),
    Allowed(
        "rooms that everybody has left",
        "This server still has the room, so its rules say who may come back; Synapse gives it up.",
        scenario="^the_last_member_leaves$",
    ),
    Allowed(
        "history of those who left",
        "Events of a shared history from before somebody joined stay visible to them, and all of a history that the "
        "whole world may read. Synapse looks at whether they are there now.",
        scenario="^visibility$",
        request=r"carol\.(shared|world_readable):",
    ),
    Allowed(
        "events that are not visible",
        "That there is such an event is not told either.",
        request="/(context|relations)/",
        place=r"^\(status\)$",
        synapse="^403 M_FORBIDDEN",
        ours="^404 M_NOT_FOUND",
    ),
    Allowed(
        "the end of history",
        "Where nothing more can come there is no token to go on with.",
        request="/messages",
        place=r"^\.end$",
        ours="^nothing$",
    ),
    Allowed(
        "limits of filters",
        "Both the filter's limit and the parameter are limits; Synapse takes the parameter alone.",
        scenario="^paging_with_filters$",
        request='"limit": 3',
        place=r"^\.chunk$",
    ),
    Allowed(
        "pages of events without a link",
        "Synapse filters a page that it has read, and so answers fewer events than there are.",
        scenario="^paging_with_filters$",
        request='"contains_url": false',
        place=r"^\.chunk$",
    ),
    Allowed(
        "members who say nothing of themselves",
        "Names and pictures are texts in the specification, never null.",
        request="/joined_members$",
        place=r"\.(display_name|avatar_url)$",
        synapse="^null$",
        ours="^nothing$",
    ),
    Allowed(
        "memberships in summaries",
        "Who has no membership is told none.",
        request="/room_summary/",
        place=r"^\.membership$",
        synapse='^"leave"$',
        ours="^nothing$",
    ),
    Allowed(
        "annotations of unknown events",
        "The event may be on its way from another server.",
        scenario="^reactions$",
        place=r"^\(status\)$",
        synapse="Can't send relation to unknown event",
        ours="^200$",
    ),
)

SYNCS: Final = (
    Allowed(
        "counts of keys",
        "This server says nothing of one-time keys to devices that have none.",
        place=r"^\.device_(one_time_keys_count|unused_fallback_key_types)$",
        ours="^nothing$",
    ),
    Allowed(
        "lists of devices",
        "Nobody in these scenarios has keys for end-to-end encryption.",
        place=r"^\.device_lists",
        ours="^nothing$",
    ),
    Allowed(
        "summaries without lazy loading",
        "Synapse leaves counts and heroes out where members are not loaded lazily; the specification does not say so.",
        place=r"\.summary\.m\.(joined_member_count|invited_member_count|heroes)$",
        synapse="^nothing$",
    ),
    Allowed(
        "empty summaries",
        "What has not changed may be left out.",
        place=r"\.summary$",
        synapse=r"^\{\}$",
        ours="^nothing$",
    ),
    Allowed(
        "account data with full state",
        "`full_state` asks for the state of rooms; account data is no such thing.",
        request="full_state=true",
        place=r"^\.account_data$",
        ours="^nothing$",
    ),
    Allowed(
        "receipts of threads",
        "A user may have several receipts on one event. This server tells all of them, in several `m.receipt` events.",
        place=r"\.ephemeral\.events\.m\.receipt|^\.rooms$",
        synapse="^nothing$",
        ours="thread_id|m.receipt|event_id of|main",
    ),
    Allowed(
        "reading by sending",
        "Who sends an event has read what came before it; Synapse counts that as unread.",
        place=r"\.unread_notifications\.notification_count$",
        ours="^0$",
    ),
    Allowed(
        "names in texts",
        "`m.mentions` has replaced the rules that look for names in texts.",
        scenario="^unread_counts$",
        place=r"\.unread_notifications\.highlight_count$",
    ),
    Allowed(
        "rooms in filtered syncs",
        "Synapse leaves the create event out of timelines, includes rooms that `not_rooms` names, and leaves out rooms "
        "of which the filter lets nothing pass, where the specification has no such exception.",
        scenario="^syncs_with_filters$",
        place=r"^\.rooms(\.join\.<[^>]*>)?(\.timeline\.events)?$",
    ),
    Allowed(
        "rooms that were left, in first syncs",
        "Without `include_leave` they are not in a first sync; Synapse includes those from which the user was banned.",
        scenario="^syncs_of_rooms_that_were_left$",
        place=r"^\.rooms$",
        ours="^nothing$",
    ),
    Allowed(
        "rooms that were never joined",
        "Who rejects an invitation has seen nothing of a shared history but the own membership.",
        scenario="^syncs_of_rooms_that_were_left$",
        place=r"\.timeline\.events$",
        ours="^1 entries: m.room.member",
    ),
)

ACCOUNTS: Final = (
    Allowed(
        "fields that are not set",
        "404 is what the specification says for them.",
        request="GET /profile/.*/avatar_url",
        place=r"^\(status\)$",
        synapse="^200$",
        ours="^404 M_NOT_FOUND",
    ),
    Allowed(
        "the status of what belongs to others",
        "M_FORBIDDEN goes with 403.",
        place=r"^\(status\)$",
        synapse="^400 M_FORBIDDEN",
        ours="^403 M_FORBIDDEN",
    ),
    Allowed(
        "tags without a number",
        "The order of a tag is a number.",
        scenario="^tags$",
        place=r"^\(status\)$|u\.odd$",
        ours="^nothing$|order must be a number",
    ),
    Allowed(
        "stages that were passed",
        "Nothing has been passed yet: an empty list says so too.",
        place=r"^\.completed$",
        synapse="^nothing$",
        ours=r"^\[\]$",
    ),
    Allowed(
        "unknown sessions and stages",
        "The client may try again with the session that it is given: that is what 401 says.",
        scenario="^registering_with_bodies_that_are_refused$",
        place=r"^\(status\)$",
        synapse="^400 ",
        ours="^401",
    ),
    Allowed(
        "user names",
        "Names that begin with an underscore follow the grammar. Capital letters are made small when registering, so a "
        "name with some is as free as the one without.",
        scenario="^registering_with_names_that_are_refused$",
        place=r"^\(status\)$",
        synapse="M_INVALID_USERNAME",
        ours="^200$",
    ),
    Allowed(
        "weak passwords",
        "M_WEAK_PASSWORD is the specification's code; Synapse has others of its own.",
        place=r"^\.errcode$",
        synapse="M_PASSWORD_TOO_SHORT",
        ours="M_WEAK_PASSWORD",
    ),
    Allowed(
        "logins of those who are gone",
        "M_USER_DEACTIVATED is what the specification has for it.",
        place=r"^\.errcode$",
        synapse="M_FORBIDDEN",
        ours="M_USER_DEACTIVATED",
    ),
    Allowed(
        "known devices",
        "Logging in on a known device ends the sessions that it had, as the specification says.",
        scenario="^logging_in_on_a_known_device$",
        place=r"^\(status\)$",
        ours="^401 M_UNKNOWN_TOKEN",
    ),
    Allowed(
        "devices that were not named or seen",
        "A name that there is not is left out. When a device was last seen may be known sooner or later.",
        place=r"\.(display_name|last_seen_ip|last_seen_ts)$",
        synapse="^null$",
    ),
    Allowed(
        "ways to log in",
        "Other devices can be logged in with a token here; application services are offered when there are any.",
        request="GET /login",
        place=r"^\.flows",
    ),
    Allowed(
        "soft logouts",
        "A refresh token that is no longer good ends the session softly, so that the client keeps its data.",
        request="POST /refresh",
        place=r"^\.soft_logout$",
        synapse="^nothing$",
    ),
    Allowed(
        "capabilities",
        "What the servers can do differs, and is said.",
        request="GET /capabilities",
        place=r"\.m\.(3pid_changes|get_login_token)\.enabled$|\.m\.forget_forced_upon_leave$",
    ),
    Allowed(
        "lists without an end",
        "A token that there is not is left out.",
        request="GET /notifications",
        place=r"^\.next_token$",
        synapse="^null$",
        ours="^nothing$",
    ),
    Allowed(
        "the first position",
        "An empty `since` is the same as none.",
        scenario="^syncs_that_are_refused$",
        request="since=$",
        place=r"^\(status\)$",
        ours="^200$",
    ),
)

PUSH_RULES: Final = (
    Allowed(
        "rules of withdrawn conditions",
        "The specification has replaced rules that look for names in texts by `m.mentions`.",
        place=r"\.\.m\.rule\.(contains_display_name|roomnotif|contains_user_name)$",
        ours="^nothing$",
    ),
    Allowed(
        "the wording of default rules",
        "Synapse says that events are not highlighted, and orders conditions and tweaks in its own way.",
        place=r"\.\.m\.rule\.[a-z_]+\.(actions|conditions)(\[\d+\].*)?$",
    ),
    Allowed(
        "rules beyond the specification",
        "`postcontent` is of a proposal, and Jitsi of one client.",
        place=r"\.postcontent$|\.\.?im\.vector\.jitsi$",
        ours="^nothing$",
    ),
)

REFUSALS: Final = (
    Allowed(
        "errors without a code of their own",
        "Synapse says M_UNKNOWN where the specification has a code for what is wrong.",
        place=r"^\.errcode$",
        synapse="M_UNKNOWN",
        ours="M_(BAD_JSON|INVALID_PARAM|MISSING_PARAM|NOT_JSON|NOT_FOUND|INVALID_USERNAME)",
    ),
    Allowed(
        "what guests may not do",
        "M_GUEST_ACCESS_FORBIDDEN is the specification's code for it.",
        place=r"^\.errcode$",
        synapse="M_FORBIDDEN",
        ours="M_GUEST_ACCESS_FORBIDDEN",
    ),
    Allowed(
        "codes for what is malformed",
        "Each of these codes fits what is wrong with the request.",
        place=r"^\.errcode$",
        synapse="M_(INVALID_PARAM|MISSING_PARAM|TOO_LARGE|UNRECOGNIZED|UNSUPPORTED_ROOM_VERSION|BAD_JSON)",
        ours="M_(BAD_JSON|INVALID_PARAM|MISSING_PARAM|NOT_JSON|UNKNOWN)",
    ),
    Allowed(
        "errors inside Synapse",
        "A malformed request is answered with 4xx here.",
        place=r"^\(status\)$",
        synapse="^500 ",
        ours="^40[03] ",
    ),
    Allowed(
        "malformed ids",
        "What is no room id names no room: here it is called that, and not a room that could not be found.",
        place=r"^\(status\)$",
        ours="^400 M_INVALID_PARAM \\(Not a room id",
    ),
    Allowed(
        "things that are not there",
        "Whether there is a room is not told to those who are not in it; a filter that there is not is not found.",
        place=r"^\(status\)$",
        synapse="^40[04] M_UNKNOWN",
        ours="^403 M_FORBIDDEN|^404 M_NOT_FOUND",
    ),
    Allowed(
        "malformed values that Synapse lets pass",
        "The specification says which type a member has, and which values a parameter.",
        place=r"^\(status\)$",
        synapse="^200$|^40[34] ",
        ours="^400 M_(BAD_JSON|INVALID_PARAM|MISSING_PARAM)",
    ),
    Allowed(
        "state that the rules refuse",
        "What the authorization rules refuse is forbidden here, even where it is malformed too.",
        request="PUT .*/state/",
        place=r"^\(status\)$",
        synapse="^400 ",
        ours="^403 M_FORBIDDEN",
    ),
    Allowed(
        "endpoints for other services",
        "Addresses of other networks, relays for calls and bridges are of no use without such services.",
        request="GET /(account/3pid|voip/turnServer|thirdparty/protocols|pushers)$",
        place=r"^\(status\)$",
        synapse="^200$",
        ours="^404 M_UNRECOGNIZED",
    ),
    Allowed(
        "proposals that Synapse tries",
        "Names with a prefix are not of the specification.",
        place=r"\.(org\.matrix|io\.element|com\.beeper|uk\.[a-z]+|fi\.mau)\.[^|]*$",
        ours="^nothing$",
    ),
)

ALLOWED: Final[tuple[Allowed, ...]] = (*EVENTS, *ROOMS, *SYNCS, *ACCOUNTS, *PUSH_RULES, *REFUSALS)
