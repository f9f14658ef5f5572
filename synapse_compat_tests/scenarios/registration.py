"""Making accounts, and user-interactive authentication.

https://spec.matrix.org/v1.19/client-server-api/#account-registration
"""

from synapse_compat_tests.recording import PASSWORD, Stage
from synapse_compat_tests.scenarios.registry import scenario

DUMMY = {"type": "m.login.dummy"}


@scenario
async def registering(stage: Stage) -> None:
    """A user asks how to register, does so, and tries what is refused."""
    anybody = stage.anybody()
    name = stage.localpart("alice")
    await anybody.get("/register/available", username=name)
    flows = await anybody.post("/register", {"username": name, "password": PASSWORD})
    auth = {**DUMMY, "session": flows["session"]}
    answer = await anybody.post("/register", {"username": name, "password": PASSWORD, "auth": auth})
    alice = stage.client("alice", answer)
    await alice.get("/account/whoami")
    await anybody.get("/register/available", username=name)
    await anybody.post("/register", {"username": name, "password": PASSWORD, "auth": DUMMY})
    await anybody.post("/register", {"username": name, "password": PASSWORD})


@scenario
async def registering_without_login(stage: Stage) -> None:
    """An account is made without a device."""
    anybody = stage.anybody()
    members = {"username": stage.localpart("alice"), "password": PASSWORD, "inhibit_login": True}
    await anybody.post("/register", {**members, "auth": DUMMY})
    await anybody.post("/register", {"password": PASSWORD, "auth": DUMMY, "device_id": "GIVEN"})


@scenario
async def registering_with_names_that_are_refused(stage: Stage) -> None:
    """User names outside of the grammar."""
    anybody = stage.anybody()
    for name in (
        "",
        "has space",
        "Upper.Case.Name",
        "sl/ash",
        "ö",
        "_underscore",
        "a" * 300,
        "@alice",
        "al:ice",
        "12345",
    ):
        await anybody.get("/register/available", username=name)
        await anybody.post("/register", {"username": name, "password": PASSWORD, "auth": DUMMY})
    await anybody.get("/register/available")


@scenario
async def registering_with_bodies_that_are_refused(stage: Stage) -> None:
    """Passwords, sessions and stages that do not do."""
    anybody = stage.anybody()
    name = stage.localpart("alice")
    await anybody.post("/register", {"username": name, "password": "short", "auth": DUMMY})
    await anybody.post("/register", {"username": name, "password": 12345678, "auth": DUMMY})
    await anybody.post("/register", {"username": ["alice"], "password": PASSWORD, "auth": DUMMY})
    await anybody.post("/register", {"username": name, "password": PASSWORD, "auth": {**DUMMY, "session": "unknown"}})
    await anybody.post("/register", {"username": name, "password": PASSWORD, "auth": {"type": "m.login.unheard_of"}})
    await anybody.post("/register", {}, kind="unheard_of")
    await anybody.call("POST", "/register", b"{")
    await anybody.call("POST", "/register", b"[]")


@scenario
async def guests(stage: Stage) -> None:
    """A guest may little."""
    answer = await stage.anybody().post("/register", {}, kind="guest")
    guest = stage.client("guest", answer)
    await guest.get("/account/whoami")
    await guest.post("/createRoom", {})
    await guest.get("/devices")
    await guest.put(f"/profile/{guest.user_id}/displayname", {"displayname": "A guest"})
    (alice,) = await stage.users("alice")
    room = await alice.create_room(preset="public_chat")
    await guest.act(room, "join")
    await alice.set_state(room, "m.room.guest_access", {"guest_access": "can_join"})
    await guest.act(room, "join")
    await guest.put(room.send_path("m.room.message", "one"), {"msgtype": "m.text", "body": "hello"})
    await guest.set_state(room, "m.room.topic", {"topic": "Mine"})
    await guest.act(room, "invite", user_id=stage.user_id("alice"))
    await guest.get(room.path + "/members")


@scenario
async def deactivating(stage: Stage) -> None:
    """An account ends: its user leaves all rooms, and its name stays taken."""
    alice, bob = await stage.users("alice", "bob")
    room = await bob.create_room(preset="public_chat")
    await alice.act(room, "join")
    await alice.put(f"/profile/{alice.user_id}/displayname", {"displayname": "Alice"})
    asked = await alice.post("/account/deactivate", {})
    auth = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": alice.user_id},
        "password": "wrong password",
        "session": asked["session"],
    }
    await alice.post("/account/deactivate", {"auth": auth})
    await alice.post("/account/deactivate", {"auth": {**auth, "password": PASSWORD}})
    await alice.get("/account/whoami")
    await stage.anybody().get("/register/available", username=stage.localpart("alice"))
    login = {"type": "m.login.password", "identifier": auth["identifier"], "password": PASSWORD}
    await stage.anybody().post("/login", login)


@scenario
async def changing_the_password(stage: Stage) -> None:
    """A password is changed; other devices are logged out, or not."""
    (alice,) = await stage.users("alice")
    identifier = {"type": "m.id.user", "user": stage.localpart("alice")}
    login = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
    phone = stage.client("alice's phone", await stage.anybody().post("/login", {**login, "device_id": "PHONE"}))
    asked = await alice.post("/account/password", {"new_password": "another password"})
    auth = {**login, "session": asked["session"]}
    await alice.post("/account/password", {"new_password": "short", "auth": auth})
    await alice.post("/account/password", {"new_password": "another password", "auth": {**auth, "password": "wrong"}})
    asked = await alice.post("/account/password", {"new_password": "another password", "logout_devices": False})
    auth["session"] = asked["session"]
    await alice.post("/account/password", {"new_password": "another password", "logout_devices": False, "auth": auth})
    await phone.get("/account/whoami")
    await stage.anybody().post("/login", login)
    asked = await alice.post("/account/password", {"new_password": "the third password"})
    auth = {**auth, "session": asked["session"], "password": "another password"}
    await alice.post("/account/password", {"new_password": "the third password", "auth": auth})
    await phone.get("/account/whoami")
    await alice.get("/account/whoami")
