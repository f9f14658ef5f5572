"""The auth events selection, and the rule about the entries of `auth_events`."""

from typing import Any

import pytest

from homeserver.core.errors import Forbidden
from homeserver.core.event_auth.auth_events import (
    auth_event_slots,
    authorizing_slots,
    check_auth_events,
    create_event_id,
    pdu_auth_slots,
    state_from_auth_events,
)
from homeserver.core.ids import EventId, RoomId
from homeserver.core.pdu import Pdu
from homeserver.core.room_versions import RoomVersion
from tests.core.room_values import (
    ADMIN,
    CREATOR,
    STRANGER,
    USER,
    VERSIONS,
    create,
    event,
    event_id,
    join_rules,
    member,
    power_levels,
    room_id,
    versions,
)

all_versions = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.identifier)
V7, V8, V11, V12 = (VERSIONS[number - 1] for number in (7, 8, 11, 12))

CREATE, LEVELS, RULES = ("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.join_rules", "")


def slots(version: RoomVersion, event_type: str, *, state_key: str | None = None, **content: Any) -> set[Any]:
    return set(
        auth_event_slots(
            event_type=event_type, sender=ADMIN, state_key=state_key, content=content, room_version=version
        )
    )


def base(version: RoomVersion) -> set[Any]:
    """What every event cites."""
    return {LEVELS, ("m.room.member", ADMIN)} | (set() if version is V12 else {CREATE})


@all_versions
def test_the_create_event_cites_nothing(version: RoomVersion) -> None:
    assert slots(version, "m.room.create", state_key="") == set()
    assert authorizing_slots(create(version)) == set()


@all_versions
def test_a_message_cites_create_power_levels_and_sender(version: RoomVersion) -> None:
    assert slots(version, "m.room.message", body="hello") == base(version)
    assert slots(version, "m.room.topic", state_key="") == base(version)


@all_versions
@pytest.mark.parametrize("membership", ["join", "invite", "knock"])
def test_entering_cites_target_and_join_rules(version: RoomVersion, membership: str) -> None:
    found = slots(version, "m.room.member", state_key=USER, membership=membership)
    assert found == base(version) | {("m.room.member", USER), RULES}


@all_versions
@pytest.mark.parametrize("membership", ["leave", "ban", "unheard-of", None, 5, ["join"]])
def test_other_memberships_cite_the_target_only(version: RoomVersion, membership: Any) -> None:
    found = slots(version, "m.room.member", state_key=USER, membership=membership)
    assert found == base(version) | {("m.room.member", USER)}


def test_a_third_party_invite_is_cited_by_its_token() -> None:
    invite = {"signed": {"token": "abc"}}
    cited = ("m.room.third_party_invite", "abc")
    assert cited in slots(V11, "m.room.member", state_key=USER, membership="invite", third_party_invite=invite)
    assert cited not in slots(V11, "m.room.member", state_key=USER, membership="join", third_party_invite=invite)


@pytest.mark.parametrize("invite", [None, "abc", {}, {"signed": None}, {"signed": {}}, {"signed": {"token": 5}}])
def test_a_third_party_invite_of_a_wrong_form_cites_nothing(invite: Any) -> None:
    found = slots(V11, "m.room.member", state_key=USER, membership="invite", third_party_invite=invite)
    assert found == base(V11) | {("m.room.member", USER), RULES}


@all_versions
def test_the_authorising_user_is_cited_where_restricted_joins_exist(version: RoomVersion) -> None:
    content = {"membership": "join", "join_authorised_via_users_server": STRANGER}
    found = slots(version, "m.room.member", state_key=ADMIN, **content)
    assert (("m.room.member", STRANGER) in found) == (version in versions(8))
    found = slots(version, "m.room.member", state_key=USER, **content | {"membership": "leave"})
    assert ("m.room.member", STRANGER) not in found
    assert slots(V8, "m.room.member", state_key=ADMIN, membership="join", join_authorised_via_users_server=5) == (
        base(V8) | {RULES}
    )


def test_the_create_event_decides_also_where_it_is_not_cited() -> None:
    message = event(V12, "m.room.message", sender=ADMIN)
    assert CREATE not in pdu_auth_slots(message)
    assert CREATE in authorizing_slots(message)


def cited(version: RoomVersion) -> dict[EventId, Pdu]:
    """The events that a join of `USER` cites, and the create event."""
    found = (create(version), power_levels(version), join_rules(version, "public"), member(version, USER, "invite"))
    return {pdu.event_id: pdu for pdu in found}


def join(version: RoomVersion, *auth_events: EventId) -> Pdu:
    content = {"membership": "join"}
    return event(version, "m.room.member", sender=USER, state_key=USER, content=content, auth_events=auth_events)


def citable(version: RoomVersion) -> list[EventId]:
    return [known for known in cited(version) if version is not V12 or known != event_id("create", V12)]


@all_versions
def test_rule_2_allows_what_the_selection_says(version: RoomVersion) -> None:
    pdu = join(version, *citable(version))
    check_auth_events(pdu, cited(version), rejected=frozenset())
    state = state_from_auth_events(pdu, cited(version))
    assert state.keys() == {CREATE, LEVELS, RULES, ("m.room.member", USER)}


@all_versions
def test_rule_2_allows_to_cite_less_than_the_selection(version: RoomVersion) -> None:
    pdu = join(version, *(() if version is V12 else [event_id("create", version)]))
    check_auth_events(pdu, cited(version), rejected=frozenset())
    assert state_from_auth_events(pdu, cited(version)).keys() == {CREATE}


@all_versions
def test_the_create_event_needs_no_auth_events(version: RoomVersion) -> None:
    check_auth_events(create(version), {}, rejected=frozenset())
    assert state_from_auth_events(create(version), {}) == {}


def refused(pdu: Pdu, events: dict[EventId, Pdu], *, rejected: frozenset[EventId] = frozenset()) -> str:
    with pytest.raises(Forbidden) as error:
        check_auth_events(pdu, events, rejected=rejected)
    return error.value.message


@all_versions
def test_rule_2_1_duplicates(version: RoomVersion) -> None:
    """Rule 3.1 in version 12."""
    twice = event_id("power-levels", version)
    assert "more than one" in refused(join(version, *citable(version), twice), cited(version))
    other = event(version, "m.room.power_levels", sender=ADMIN, name="other-levels", state_key="")
    events = cited(version) | {other.event_id: other}
    assert "more than one" in refused(join(version, *citable(version), other.event_id), events)


@all_versions
@pytest.mark.parametrize(
    ("event_type", "state_key"),
    [("m.room.topic", ""), ("m.room.member", STRANGER), ("m.room.message", None), ("m.room.power_levels", "x")],
)
def test_rule_2_2_events_outside_the_selection(version: RoomVersion, event_type: str, state_key: str | None) -> None:
    """Rule 3.2 in version 12."""
    other = event(version, event_type, sender=ADMIN, name="other", state_key=state_key)
    events = cited(version) | {other.event_id: other}
    assert "not one that the event needs" in refused(join(version, *citable(version), other.event_id), events)


def test_rule_3_2_version_12_the_create_event_must_not_be_cited() -> None:
    assert "not one that" in refused(join(V12, *citable(V12), event_id("create", V12)), cited(V12))


@all_versions
def test_rule_2_3_rejected_auth_events(version: RoomVersion) -> None:
    """Rule 3.3 in version 12."""
    bad = event_id("join-rules", version)
    assert "rejected" in refused(join(version, *citable(version)), cited(version), rejected=frozenset({bad}))


@pytest.mark.parametrize("version", versions(1, 11), ids=lambda version: version.identifier)
def test_rule_2_4_no_create_event(version: RoomVersion) -> None:
    pdu = join(version, *(known for known in cited(version) if known != event_id("create", version)))
    assert "no create event" in refused(pdu, cited(version))
    assert "no create event" in refused(join(version), cited(version))


@all_versions
def test_s10_rule_2_5_auth_events_of_another_room(version: RoomVersion) -> None:
    """Rule 3.5 in version 12."""
    elsewhere = event(
        version,
        "m.room.power_levels",
        sender=ADMIN,
        name="power-levels",
        state_key="",
        room=room_id(version, "elsewhere"),
    )
    events = cited(version) | {elsewhere.event_id: elsewhere}
    assert "another room" in refused(join(version, *citable(version)), events)


@all_versions
def test_auth_events_that_are_not_known(version: RoomVersion) -> None:
    assert "not known" in refused(join(version, *citable(version), EventId("$nowhere")), cited(version))


def test_rule_2_version_12_the_room_id_names_an_accepted_create_event() -> None:
    pdu = join(V12, *citable(V12))
    create_id = create_event_id(pdu.room_id)
    assert create_id == event_id("create", V12)
    events = cited(V12)
    assert "room id" in refused(pdu, events, rejected=frozenset({create_id}))
    del events[create_id]
    assert "room id" in refused(pdu, events)
    # An event of the right id that is no create event of a room.
    for event_type, state_key in (("m.room.topic", ""), ("m.room.create", "x"), ("m.room.create", None)):
        imposter = event(V12, event_type, sender=CREATOR, name="create", state_key=state_key, room=RoomId("!create"))
        assert "room id" in refused(pdu, events | {create_id: imposter})
