"""The authorization rules outside of membership and power levels, in all room versions, named by their numbers."""

from dataclasses import replace
from typing import Any

import pytest

from homeserver.core.errors import Forbidden
from homeserver.core.event_auth.power_levels import PowerLevels
from homeserver.core.event_auth.redactions import redaction_applies
from homeserver.core.event_auth.rules import check_auth
from homeserver.core.ids import EventId, RoomId
from homeserver.core.pdu import Pdu, StateKey
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
    member,
    power_levels,
    room_id,
    state_of,
    usual_levels,
    usual_state,
    versions,
)

V1, V3, V10, V11, V12 = (VERSIONS[number - 1] for number in (1, 3, 10, 11, 12))


def in_versions(first: int, last: int = len(VERSIONS)) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("version", versions(first, last), ids=lambda version: version.identifier)


def allowed(pdu: Pdu, state: dict[StateKey, Pdu]) -> bool:
    try:
        check_auth(pdu, state)
    except Forbidden:
        return False
    return True


# Rule 1: the create event.


def created(version: RoomVersion, *, sender: str = CREATOR, room: RoomId | None = None, **content: Any) -> Pdu:
    return event(version, "m.room.create", sender=sender, state_key="", content=content, prev_events=(), room=room)


@in_versions(1)
def test_rule_1_a_create_event_is_allowed(version: RoomVersion) -> None:
    assert allowed(create(version), {})


@in_versions(1)
def test_rule_1_1_a_create_event_after_another_event(version: RoomVersion) -> None:
    late = event(version, "m.room.create", sender=CREATOR, state_key="", content={"creator": CREATOR})
    assert late.prev_events
    assert not allowed(late, {})


@in_versions(1, 11)
def test_rule_1_2_the_room_id_is_of_another_server(version: RoomVersion) -> None:
    assert not allowed(created(version, sender=STRANGER, creator=STRANGER), {})
    assert not allowed(created(version, creator=CREATOR, room=RoomId("!withoutdomain")), {})


@in_versions(12)
def test_rule_1_2_the_create_event_has_a_room_id(version: RoomVersion) -> None:
    pdu = create(version)
    named = Pdu.trusted(
        {
            "type": pdu.type,
            "room_id": pdu.room_id,
            "sender": pdu.sender,
            "state_key": "",
            "content": {},
            "origin_server_ts": 0,
            "depth": 1,
            "prev_events": [],
            "auth_events": [],
        },
        pdu.event_id,
        version,
        pdu.room_id,
    )
    assert not allowed(named, {})


@in_versions(1)
@pytest.mark.parametrize("value", ["0", "13", "org.example.unheard-of", None, 12, ["12"]])
def test_rule_1_3_an_unknown_room_version(version: RoomVersion, value: Any) -> None:
    assert not allowed(created(version, creator=CREATOR, room_version=value), {})


@in_versions(1)
def test_rule_1_3_room_version_may_be_absent(version: RoomVersion) -> None:
    assert allowed(created(version, creator=CREATOR), {})


@in_versions(1)
def test_rule_1_4_the_creator_must_be_named_until_version_10(version: RoomVersion) -> None:
    assert allowed(created(version), {}) == (version in versions(11))


@in_versions(11)
@pytest.mark.parametrize("value", [None, USER, [5], ["user"], ["@user"], [USER, "@no\x00name:a"], ["@" + "a" * 255]])
def test_rule_1_4_additional_creators_that_are_no_users(version: RoomVersion, value: Any) -> None:
    assert allowed(created(version, additional_creators=value), {}) == (version is V11)


def test_rule_1_4_additional_creators() -> None:
    assert allowed(created(V12, additional_creators=[]), {})
    assert allowed(created(V12, additional_creators=[USER, ADMIN]), {})


# Rules 2 and 3: the room.


@in_versions(1)
def test_nothing_is_allowed_without_a_create_event(version: RoomVersion) -> None:
    state = usual_state(version)
    del state["m.room.create", ""]
    assert not allowed(event(version, "m.room.message", sender=ADMIN), state)


@in_versions(1)
def test_s10_the_state_of_another_room_allows_nothing(version: RoomVersion) -> None:
    """Rule 2 in version 12."""
    state = usual_state(version)
    pdu = event(version, "m.room.message", sender=ADMIN, room=room_id(version, "elsewhere"))
    assert not allowed(pdu, state)


@in_versions(1)
def test_rule_3_a_room_that_does_not_federate(version: RoomVersion) -> None:
    """Rule 4 in version 12."""
    closed = usual_state(version, create(version, **{"m.federate": False}))
    assert allowed(event(version, "m.room.message", sender=ADMIN), closed)
    assert not allowed(event(version, "m.room.message", sender=USER), closed)
    assert not allowed(member_event(version, STRANGER), closed)
    for value in (True, None, 0, "false"):
        open_room = usual_state(version, create(version, **{"m.federate": value}))
        assert allowed(event(version, "m.room.message", sender=USER), open_room)


def member_event(version: RoomVersion, user_id: str) -> Pdu:
    return event(version, "m.room.member", sender=user_id, state_key=user_id, content={"membership": "join"})


# Rule 4 of versions 1 to 5: aliases.


@in_versions(1, 5)
def test_rule_4_aliases_belong_to_a_server(version: RoomVersion) -> None:
    def aliases(sender: str, state_key: str | None) -> Pdu:
        return event(version, "m.room.aliases", sender=sender, state_key=state_key)

    state = usual_state(version)
    assert not allowed(aliases(ADMIN, None), state)
    assert not allowed(aliases(ADMIN, ""), state)
    assert not allowed(aliases(ADMIN, "two.example"), state)
    assert allowed(aliases(USER, "two.example"), state)
    # Not even membership is asked for.
    assert allowed(aliases(STRANGER, "three.example"), state)


@in_versions(6)
def test_aliases_are_like_any_state_from_version_6_on(version: RoomVersion) -> None:
    state = usual_state(version)
    assert not allowed(event(version, "m.room.aliases", sender=STRANGER, state_key="three.example"), state)
    assert not allowed(event(version, "m.room.aliases", sender=USER, state_key="two.example"), state)
    assert allowed(event(version, "m.room.aliases", sender=MODERATOR, state_key="two.example"), state)


# Rules 6 to 9 (versions 6 to 11: 5 to 8).


@in_versions(1)
@pytest.mark.parametrize("membership", [None, "invite", "leave", "ban", "knock"])
def test_rule_6_the_sender_must_have_joined(version: RoomVersion, membership: str | None) -> None:
    state = usual_state(version)
    if membership is None:
        del state["m.room.member", ADMIN]
    else:
        state |= state_of(member(version, ADMIN, membership))
    assert not allowed(event(version, "m.room.message", sender=ADMIN), state)


@in_versions(1)
def test_rule_7_third_party_invites_take_the_invite_level(version: RoomVersion) -> None:
    def offer(sender: str) -> Pdu:
        return event(version, "m.room.third_party_invite", sender=sender, state_key="token")

    # State events take 50 here, invitations 0: the latter counts alone.
    assert allowed(offer(USER), usual_state(version))
    assert not allowed(offer(STRANGER), usual_state(version))
    strict = usual_state(version, power_levels(version, users=usual_levels(version), invite=60))
    assert not allowed(offer(MODERATOR), strict)
    assert allowed(offer(ADMIN), strict)


@in_versions(1)
def test_rule_8_the_required_power_level(version: RoomVersion) -> None:
    state = usual_state(
        version,
        power_levels(version, users=usual_levels(version), events={"m.room.name": 10, "m.poll": 60, "m.room.topic": 0}),
    )
    assert allowed(event(version, "m.room.message", sender=USER), state)
    assert not allowed(event(version, "m.room.avatar", sender=USER, state_key=""), state)
    assert allowed(event(version, "m.room.avatar", sender=MODERATOR, state_key=""), state)
    assert not allowed(event(version, "m.room.name", sender=USER, state_key=""), state)
    assert allowed(event(version, "m.room.topic", sender=USER, state_key=""), state)
    assert not allowed(event(version, "m.poll", sender=MODERATOR), state)
    assert allowed(event(version, "m.poll", sender=ADMIN), state)


@in_versions(12)
def test_rule_8_no_level_is_too_high_for_a_creator(version: RoomVersion) -> None:
    state = usual_state(version, power_levels(version, users={}, events={"m.room.tombstone": 2**53 - 1}))
    assert allowed(event(version, "m.room.tombstone", sender=CREATOR, state_key=""), state)
    assert not allowed(event(version, "m.room.tombstone", sender=ADMIN, state_key=""), state)


@in_versions(1)
def test_rule_8_without_power_levels_only_the_creator_sets_state(version: RoomVersion) -> None:
    state = usual_state(version)
    del state["m.room.power_levels", ""]
    assert allowed(event(version, "m.room.topic", sender=CREATOR, state_key=""), state)
    assert not allowed(event(version, "m.room.topic", sender=ADMIN, state_key=""), state)
    assert allowed(event(version, "m.room.message", sender=ADMIN), state)


@in_versions(1)
def test_rule_9_state_keys_that_are_user_ids(version: RoomVersion) -> None:
    state = usual_state(version)
    assert allowed(event(version, "org.example.note", sender=MODERATOR, state_key=MODERATOR), state)
    assert not allowed(event(version, "org.example.note", sender=ADMIN, state_key=MODERATOR), state)
    assert not allowed(event(version, "org.example.note", sender=ADMIN, state_key=f"{ADMIN}_x"), state)
    assert not allowed(event(version, "org.example.note", sender=ADMIN, state_key="@"), state)
    assert allowed(event(version, "org.example.note", sender=ADMIN, state_key=MODERATOR[1:]), state)


@in_versions(1)
def test_power_levels_without_sense_allow_nothing_that_depends_on_them(version: RoomVersion) -> None:
    state = usual_state(version, power_levels(version, users="everybody"))
    assert not allowed(event(version, "m.room.message", sender=ADMIN), state)


@in_versions(1)
def test_levels_that_were_read_before_are_taken(version: RoomVersion) -> None:
    state = usual_state(version)
    levels = PowerLevels.in_force(state["m.room.power_levels", ""], state["m.room.create", ""])
    check_auth(event(version, "m.room.topic", sender=ADMIN, state_key=""), state, power_levels=levels)
    with pytest.raises(Forbidden):
        check_auth(event(version, "m.room.topic", sender=USER, state_key=""), state, power_levels=levels)


# Rule 11 of versions 1 and 2, and the handling of redactions.


def redaction(version: RoomVersion, sender: str, redacts: EventId | None, *, name: str = "event") -> Pdu:
    return event(version, "m.room.redaction", sender=sender, redacts=redacts, name=name)


@in_versions(1, 2)
def test_rule_11_redactions(version: RoomVersion) -> None:
    state = usual_state(version)
    foreign, local = EventId("$said:two.example"), EventId("$said:one.example")
    # 11.1
    assert allowed(redaction(version, MODERATOR, foreign), state)
    # 11.2: the event ids count, not the senders.
    assert allowed(redaction(version, USER, local), state)
    # 11.3
    assert not allowed(redaction(version, USER, foreign), state)
    assert not allowed(redaction(version, USER, None), state)
    assert not allowed(redaction(version, USER, EventId("$said")), state)
    # The level of the event type comes first.
    strict = usual_state(version, power_levels(version, users={ADMIN: 100}, events={"m.room.redaction": 60}))
    assert not allowed(redaction(version, USER, local), strict)


@in_versions(3)
def test_redactions_are_like_any_event_from_version_3_on(version: RoomVersion) -> None:
    state = usual_state(version)
    assert allowed(redaction(version, USER, EventId("$anything")), state)
    assert allowed(redaction(version, USER, None), state)
    assert not allowed(redaction(version, STRANGER, EventId("$anything")), state)


@in_versions(3)
def test_whose_redactions_apply_from_version_3_on(version: RoomVersion) -> None:
    levels = PowerLevels.in_force(power_levels(version, users=usual_levels(version)), create(version))
    said = event(version, "m.room.message", sender=USER, name="said")

    def applies(sender: str, target: Pdu = said) -> bool:
        return redaction_applies(
            redaction=redaction(version, sender, said.event_id), target=target, power_levels=levels
        )

    assert applies(USER)
    assert applies(ADMIN)
    assert applies("@other:two.example")
    assert not applies(STRANGER)
    assert applies(CREATOR)
    # Exactly the redact level is enough.
    by_admin = event(version, "m.room.message", sender=ADMIN, name="said")
    assert applies(MODERATOR, by_admin)
    assert not applies(USER, by_admin)
    # The wrong target, and a target in another room.
    assert not applies(ADMIN, event(version, "m.room.message", sender=USER, name="other"))
    assert not applies(
        ADMIN, event(version, "m.room.message", sender=USER, name="said", room=room_id(version, "elsewhere"))
    )


@in_versions(1, 2)
def test_s14_redactions_across_servers_in_versions_1_and_2(version: RoomVersion) -> None:
    levels = PowerLevels.in_force(power_levels(version, users={ADMIN: 100}), create(version))
    # The ids of `event()` are all of one.example.
    said = event(version, "m.room.message", sender=USER, name="said")
    assert redaction_applies(redaction=redaction(version, STRANGER, said.event_id), target=said, power_levels=levels)
    foreign = replace(said, event_id=EventId("$said:two.example"))
    assert not redaction_applies(
        redaction=redaction(version, STRANGER, foreign.event_id), target=foreign, power_levels=levels
    )


@in_versions(1)
def test_s14_a_create_event_is_never_redacted(version: RoomVersion) -> None:
    levels = PowerLevels.in_force(power_levels(version, users={ADMIN: 100}), create(version))
    pdu = redaction(version, ADMIN, create(version).event_id)
    assert not redaction_applies(redaction=pdu, target=create(version), power_levels=levels)


@in_versions(1)
def test_s14_a_redaction_that_redacts_itself_ends(version: RoomVersion) -> None:
    levels = PowerLevels.in_force(power_levels(version, users={ADMIN: 100}), create(version))
    pdu = redaction(version, ADMIN, redaction(version, ADMIN, None).event_id)
    assert redaction_applies(redaction=pdu, target=pdu, power_levels=levels)
