"""The authorization rules for `m.room.member`, as a table: each case with the rule that decides it.

The table gives the numbers of version 12; the names of the tests give those of each version.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from homeserver.core.errors import Forbidden
from homeserver.core.event_auth.rules import check_auth
from homeserver.core.ids import EventId
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import RoomVersion
from tests.core.room_values import (
    ADMIN,
    CREATOR,
    MODERATOR,
    STRANGER,
    USER,
    VERSIONS,
    create,
    event,
    event_id,
    join_rules,
    member,
    power_levels,
    state_of,
    usual_levels,
    usual_state,
    versions,
)

Change = Callable[[RoomVersion], Pdu]


def has(user_id: str, membership: str) -> Change:
    return lambda version: member(version, user_id, membership)


def rule(join_rule: Any) -> Change:
    return lambda version: join_rules(version, join_rule)


def levels(**content: Any) -> Change:
    return lambda version: power_levels(version, **{"users": usual_levels(version), **content})


@dataclass(frozen=True)
class Case:
    """One event against one state; `changes` are what differs from the usual state."""

    rule: str
    allowed: bool
    sender: str
    membership: Any
    target: str | None
    changes: Sequence[Change] = ()
    content: dict[str, Any] = field(default_factory=dict)
    versions: Sequence[RoomVersion] = VERSIONS


VIA_MODERATOR = {"join_authorised_via_users_server": MODERATOR}
VIA_USER = {"join_authorised_via_users_server": USER}
OTHER = "@other:two.example"

CASES = [
    # 5.1 and 5.8: the form of the event.
    Case("5.1", False, USER, "leave", None),
    Case("5.1", False, ADMIN, "ban", "nobody"),
    Case("5.8", False, USER, "unheard-of", USER),
    Case("5.8", False, USER, None, USER),
    Case("5.8", False, USER, ["join"], USER),
    Case("5.8", False, STRANGER, "knock", STRANGER, [rule("knock")], versions=versions(1, 6)),
    # 5.3: join.
    Case("5.3.2", False, ADMIN, "join", STRANGER),
    Case("5.3.2", False, ADMIN, "join", USER),
    Case("5.3.3", False, STRANGER, "join", STRANGER, [has(STRANGER, "ban")]),
    Case("5.3.3", False, STRANGER, "join", STRANGER, [has(STRANGER, "ban"), rule("invite")]),
    Case("5.3.4", True, STRANGER, "join", STRANGER, [rule("invite"), has(STRANGER, "invite")]),
    Case("5.3.4", True, USER, "join", USER, [rule("invite")]),
    Case("5.3.4", False, STRANGER, "join", STRANGER, [rule("invite")]),
    Case("5.3.4", False, STRANGER, "join", STRANGER, [rule("invite"), has(STRANGER, "leave")]),
    Case("5.3.4", False, STRANGER, "join", STRANGER, [rule("invite"), has(STRANGER, "knock")]),
    Case("5.3.4", True, STRANGER, "join", STRANGER, [rule("knock"), has(STRANGER, "invite")], versions=versions(7)),
    Case("5.3.4", True, USER, "join", USER, [rule("knock")], versions=versions(7)),
    Case("5.3.4", False, STRANGER, "join", STRANGER, [rule("knock"), has(STRANGER, "knock")], versions=versions(7)),
    Case("5.3.7", False, STRANGER, "join", STRANGER, [rule("knock"), has(STRANGER, "invite")], versions=versions(1, 6)),
    *(
        case
        for join_rule, known in (("restricted", versions(8)), ("knock_restricted", versions(10)))
        for case in (
            Case("5.3.5.1", True, STRANGER, "join", STRANGER, [rule(join_rule), has(STRANGER, "invite")], {}, known),
            Case("5.3.5.1", True, USER, "join", USER, [rule(join_rule)], {}, known),
            Case("5.3.5.2", False, STRANGER, "join", STRANGER, [rule(join_rule)], {}, known),
            Case("5.3.5.2", False, STRANGER, "join", STRANGER, [rule(join_rule), has(USER, "leave")], VIA_USER, known),
            Case("5.3.5.2", False, STRANGER, "join", STRANGER, [rule(join_rule), levels(invite=1)], VIA_USER, known),
            Case(
                "5.3.5.2",
                False,
                STRANGER,
                "join",
                STRANGER,
                [rule(join_rule)],
                {"join_authorised_via_users_server": ["x"]},
                known,
            ),
            Case("5.3.5.3", True, STRANGER, "join", STRANGER, [rule(join_rule)], VIA_USER, known),
            Case(
                "5.3.5.3", True, STRANGER, "join", STRANGER, [rule(join_rule), levels(invite=50)], VIA_MODERATOR, known
            ),
            Case("5.3.3", False, STRANGER, "join", STRANGER, [rule(join_rule), has(STRANGER, "ban")], VIA_USER, known),
        )
    ),
    Case("5.3.7", False, STRANGER, "join", STRANGER, [rule("restricted")], VIA_USER, versions(1, 7)),
    Case("5.3.7", False, STRANGER, "join", STRANGER, [rule("knock_restricted")], VIA_USER, versions(1, 9)),
    Case("5.3.6", True, STRANGER, "join", STRANGER),
    Case("5.3.6", True, STRANGER, "join", STRANGER, [has(STRANGER, "leave")]),
    Case("5.3.6", True, USER, "join", USER),
    Case("5.3.7", False, STRANGER, "join", STRANGER, [rule("private"), has(STRANGER, "invite")]),
    Case("5.3.7", False, STRANGER, "join", STRANGER, [rule(None), has(STRANGER, "invite")]),
    Case("5.3.7", False, STRANGER, "join", STRANGER, [rule(["public"])]),
    # 5.4: invite. Invitations from a third party have a test module of their own.
    Case("5.4.2", False, STRANGER, "invite", OTHER),
    Case("5.4.2", False, STRANGER, "invite", OTHER, [has(STRANGER, "invite")]),
    Case("5.4.3", False, ADMIN, "invite", USER),
    Case("5.4.3", False, ADMIN, "invite", STRANGER, [has(STRANGER, "ban")]),
    Case("5.4.4", True, USER, "invite", STRANGER),
    Case("5.4.4", True, USER, "invite", STRANGER, [has(STRANGER, "leave")]),
    Case("5.4.4", True, USER, "invite", STRANGER, [has(STRANGER, "knock")]),
    Case("5.4.4", True, MODERATOR, "invite", STRANGER, [levels(invite=50)]),
    Case("5.4.5", False, USER, "invite", STRANGER, [levels(invite=50)]),
    # 5.5: leave.
    Case("5.5.1", True, USER, "leave", USER),
    Case("5.5.1", True, STRANGER, "leave", STRANGER, [has(STRANGER, "invite")]),
    Case("5.5.1", True, STRANGER, "leave", STRANGER, [has(STRANGER, "knock")], versions=versions(7)),
    Case("5.5.1", False, STRANGER, "leave", STRANGER, [has(STRANGER, "knock")], versions=versions(1, 6)),
    Case("5.5.1", False, STRANGER, "leave", STRANGER),
    Case("5.5.1", False, STRANGER, "leave", STRANGER, [has(STRANGER, "leave")]),
    Case("5.5.1", False, STRANGER, "leave", STRANGER, [has(STRANGER, "ban")]),
    Case("5.5.2", False, STRANGER, "leave", USER),
    Case("5.5.2", False, ADMIN, "leave", USER, [has(ADMIN, "leave")]),
    Case("5.5.3", False, MODERATOR, "leave", STRANGER, [has(STRANGER, "ban"), levels(ban=60)]),
    Case("5.5.3", True, MODERATOR, "leave", STRANGER, [has(STRANGER, "ban")]),
    Case("5.5.4", True, MODERATOR, "leave", USER),
    Case("5.5.4", True, ADMIN, "leave", MODERATOR),
    Case("5.5.4", True, MODERATOR, "leave", STRANGER, [has(STRANGER, "invite")]),
    Case("5.5.5", False, USER, "leave", OTHER, [has(OTHER, "join")]),
    Case("5.5.5", False, MODERATOR, "leave", ADMIN),
    Case("5.5.5", False, MODERATOR, "leave", USER, [levels(kick=60)]),
    Case("5.5.5", False, USER, "leave", OTHER, [has(OTHER, "join"), levels(kick=0)]),
    # To unban takes the kick level as well.
    Case("5.5.5", False, MODERATOR, "leave", STRANGER, [has(STRANGER, "ban"), levels(kick=60)]),
    # 5.6: ban.
    Case("5.6.1", False, ADMIN, "ban", USER, [has(ADMIN, "leave")]),
    Case("5.6.1", False, STRANGER, "ban", USER),
    Case("5.6.2", True, MODERATOR, "ban", USER),
    Case("5.6.2", True, MODERATOR, "ban", STRANGER),
    Case("5.6.2", True, MODERATOR, "ban", STRANGER, [has(STRANGER, "ban")]),
    Case("5.6.3", False, USER, "ban", STRANGER),
    Case("5.6.3", False, MODERATOR, "ban", ADMIN),
    Case("5.6.3", False, MODERATOR, "ban", MODERATOR),
    Case("5.6.3", False, MODERATOR, "ban", USER, [levels(ban=60)]),
    # Creators of version 12 stand above everybody and beside each other.
    Case("5.5.4", True, CREATOR, "leave", ADMIN, versions=versions(12)),
    Case("5.5.5", False, ADMIN, "leave", CREATOR, versions=versions(12)),
    Case("5.6.3", False, ADMIN, "ban", CREATOR, [levels(users={ADMIN: 2**53 - 1})], versions=versions(12)),
    Case("5.6.3", False, CREATOR, "ban", CREATOR, versions=versions(12)),
    # 5.7: knock.
    *(
        case
        for join_rule, known in (("knock", versions(7)), ("knock_restricted", versions(10)))
        for case in (
            Case("5.7.2", False, USER, "knock", STRANGER, [rule(join_rule)], {}, known),
            Case("5.7.3", True, STRANGER, "knock", STRANGER, [rule(join_rule)], {}, known),
            Case("5.7.3", True, STRANGER, "knock", STRANGER, [rule(join_rule), has(STRANGER, "leave")], {}, known),
            Case("5.7.3", True, STRANGER, "knock", STRANGER, [rule(join_rule), has(STRANGER, "knock")], {}, known),
            Case("5.7.4", False, STRANGER, "knock", STRANGER, [rule(join_rule), has(STRANGER, "ban")], {}, known),
            Case("5.7.4", False, STRANGER, "knock", STRANGER, [rule(join_rule), has(STRANGER, "invite")], {}, known),
            Case("5.7.4", False, USER, "knock", USER, [rule(join_rule)], {}, known),
        )
    ),
    *(
        Case("5.7.1", False, STRANGER, "knock", STRANGER, [rule(join_rule)], {}, versions(7))
        for join_rule in ("public", "invite", "restricted", "private", None)
    ),
    Case("5.7.1", False, STRANGER, "knock", STRANGER, [rule("knock_restricted")], {}, versions(7, 9)),
]


def number_in(version: RoomVersion, rule: str) -> str:
    """The number in a room version of a rule of version 12."""
    top, sub, *rest = (int(part) for part in rule.split("."))
    if version in versions(6, 11):
        top = 4
    if version in versions(1, 7):
        # Without the rules about `join_authorised_via_users_server`: 5.2 and 5.3.5.
        rest = [rest[0] - 1, *rest[1:]] if sub == 3 and rest[0] > 5 else rest
        # Without the one about knocking: 5.7.
        sub -= (sub > 2) + (sub > 7 and version in versions(1, 6))
    return ".".join(str(part) for part in (top, sub, *rest))


def check(case: Case, version: RoomVersion) -> bool:
    state = usual_state(version, *(change(version) for change in case.changes))
    pdu = event(
        version,
        "m.room.member",
        sender=case.sender,
        state_key=case.target,
        content={"membership": case.membership, **case.content},
    )
    try:
        check_auth(pdu, state)
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize(
    ("case", "version"),
    [
        pytest.param(case, version, id=f"v{version.identifier}-rule-{number_in(version, case.rule)}-case-{number}")
        for number, case in enumerate(CASES)
        for version in case.versions
    ],
)
def test_membership_rules(case: Case, version: RoomVersion) -> None:
    assert check(case, version) is case.allowed


all_versions = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.identifier)


@all_versions
def test_rule_5_1_there_must_be_a_membership(version: RoomVersion) -> None:
    pdu = event(version, "m.room.member", sender=USER, state_key=USER, content={"displayname": "U"})
    with pytest.raises(Forbidden):
        check_auth(pdu, usual_state(version))


def first_join(version: RoomVersion, user_id: str, *, prev_events: Sequence[EventId] = ()) -> Pdu:
    return event(
        version,
        "m.room.member",
        sender=user_id,
        state_key=user_id,
        content={"membership": "join"},
        prev_events=prev_events or [create(version).event_id],
    )


@all_versions
def test_rule_5_3_1_the_creator_joins_first(version: RoomVersion) -> None:
    state = state_of(create(version))
    check_auth(first_join(version, CREATOR), state)
    with pytest.raises(Forbidden):
        check_auth(first_join(version, ADMIN), state)
    # Only right after the create event.
    for prev_events in ([event_id("other", version)], [create(version).event_id, event_id("other", version)]):
        with pytest.raises(Forbidden):
            check_auth(first_join(version, CREATOR, prev_events=prev_events), state)


@all_versions
def test_rule_5_3_1_who_the_creator_is(version: RoomVersion) -> None:
    """Until version 10 the content says it, from version 11 on the sender; additional creators are none here."""
    state = state_of(create(version, creator=ADMIN, additional_creators=[USER]))
    joins = {user_id: first_join(version, user_id) for user_id in (CREATOR, ADMIN, USER)}
    allowed = CREATOR if version in versions(11) else ADMIN
    for user_id, pdu in joins.items():
        if user_id == allowed:
            check_auth(pdu, state)
        else:
            with pytest.raises(Forbidden):
                check_auth(pdu, state)


@all_versions
def test_rule_5_3_4_without_join_rules_one_must_be_invited(version: RoomVersion) -> None:
    state = usual_state(version, member(version, STRANGER, "invite"))
    del state["m.room.join_rules", ""]
    check_auth(
        event(version, "m.room.member", sender=STRANGER, state_key=STRANGER, content={"membership": "join"}), state
    )
    with pytest.raises(Forbidden):
        check_auth(
            event(version, "m.room.member", sender=OTHER, state_key=OTHER, content={"membership": "join"}), state
        )
