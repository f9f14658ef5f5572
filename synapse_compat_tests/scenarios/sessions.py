"""Logging in and out, refreshing tokens, devices.

https://spec.matrix.org/v1.19/client-server-api/#login
"""

from typing import Any

from synapse_compat_tests.recording import PASSWORD, Stage
from synapse_compat_tests.scenarios.registry import scenario


def login_as(user: str, password: str = PASSWORD, **more: Any) -> dict[str, Any]:
    """The body of a login."""
    identifier = {"type": "m.id.user", "user": user}
    return {"type": "m.login.password", "identifier": identifier, "password": password, **more}


@scenario
async def logging_in(stage: Stage) -> None:
    """Every way to write who one is, and what is refused."""
    anybody = stage.anybody()
    await anybody.get("/login")
    await stage.user("alice")
    name = stage.localpart("alice")
    for user in (name, stage.user_id("alice"), name.upper(), f"@{name}", f"@{name}:other.example", "nobody", ""):
        await anybody.post("/login", login_as(user, device_id="LAPTOP"))
    await anybody.post("/login", {"type": "m.login.password", "user": name, "password": PASSWORD, "device_id": "OLD"})
    await anybody.post("/login", login_as(name, "wrong"))
    await anybody.post("/login", {"type": "m.login.unheard_of"})
    await anybody.post("/login", {"type": "m.login.password", "password": PASSWORD})
    await anybody.post("/login", {"type": "m.login.password", "identifier": {"type": "m.id.user"}, "password": "x"})
    await anybody.post("/login", {"type": "m.login.password", "identifier": {"type": "odd"}, "password": "x"})
    await anybody.post("/login", {"type": "m.login.token", "token": "unheard of"})
    await anybody.post("/login", {})
    await anybody.call("POST", "/login", b"not JSON")
    await anybody.post("/login", login_as(name, device_id="NAMED", initial_device_display_name="A phone"))


@scenario
async def logging_out(stage: Stage) -> None:
    """One session ends, then all of them."""
    alice = await stage.user("alice")
    name = stage.localpart("alice")
    phone = stage.client("phone", await stage.anybody().post("/login", login_as(name, device_id="PHONE")))
    tablet = stage.client("tablet", await stage.anybody().post("/login", login_as(name, device_id="TABLET")))
    await phone.post("/logout")
    await phone.get("/account/whoami")
    await phone.post("/logout")
    await tablet.get("/devices")
    await tablet.post("/logout/all")
    for client in (alice, phone, tablet, stage.anybody()):
        await client.get("/account/whoami")
    await stage.anybody().post("/logout")


@scenario
async def logging_in_on_a_known_device(stage: Stage) -> None:
    """The session of before ends, the device stays."""
    alice = await stage.user("alice")
    again = stage.client("again", await stage.anybody().post("/login", login_as(alice.user_id, device_id="ALICE")))
    await alice.get("/account/whoami")
    await again.get("/devices")


@scenario
async def refreshing(stage: Stage) -> None:
    """A client that can refresh its tokens does so."""
    await stage.user("alice")
    anybody = stage.anybody()
    answer = await anybody.post("/login", login_as(stage.localpart("alice"), device_id="PHONE", refresh_token=True))
    old = stage.client("phone", answer)
    await old.get("/account/whoami")
    renewed = await anybody.post("/refresh", {"refresh_token": answer["refresh_token"]})
    new = stage.client("phone", answer)
    new.token = renewed["access_token"]
    await new.get("/account/whoami")
    await new.get("/devices")
    await anybody.post("/refresh", {"refresh_token": renewed["refresh_token"]})
    await anybody.post("/refresh", {"refresh_token": answer["refresh_token"]})
    await anybody.post("/refresh", {"refresh_token": "unheard of"})
    await anybody.post("/refresh", {})
    await anybody.post("/refresh", {"refresh_token": 17})


@scenario
async def devices(stage: Stage) -> None:
    """Devices are listed, named and removed."""
    alice, bob = await stage.users("alice", "bob")
    name = stage.localpart("alice")
    await stage.anybody().post("/login", login_as(name, device_id="PHONE", initial_device_display_name="A phone"))
    await stage.anybody().post("/login", login_as(name, device_id="TABLET"))
    await alice.get("/devices")
    await alice.get("/devices/PHONE")
    await alice.get("/devices/UNHEARD_OF")
    await bob.get("/devices/PHONE")
    await alice.put("/devices/PHONE", {"display_name": "An old phone"})
    await alice.put("/devices/PHONE", {})
    await alice.put("/devices/PHONE", {"display_name": 5})
    await alice.put("/devices/PHONE", {"display_name": "x" * 500})
    await alice.put("/devices/UNHEARD_OF", {"display_name": "Mine"})
    await alice.get("/devices/PHONE")
    asked = await alice.delete("/devices/PHONE", {})
    auth = {**login_as(alice.user_id), "session": asked["session"]}
    await alice.delete("/devices/PHONE", {"auth": {**auth, "password": "wrong"}})
    await alice.delete("/devices/PHONE", {"auth": auth})
    asked = await alice.post("/delete_devices", {"devices": ["TABLET", "UNHEARD_OF"]})
    auth["session"] = asked["session"]
    await alice.post("/delete_devices", {"devices": ["TABLET", "UNHEARD_OF"], "auth": auth})
    await alice.post("/delete_devices", {})
    await alice.post("/delete_devices", {"devices": "TABLET"})
    await alice.get("/devices")


@scenario
async def tokens_that_are_refused(stage: Stage) -> None:
    """No token, a wrong one, one in the query."""
    alice = await stage.user("alice")
    await stage.anybody().get("/account/whoami")
    wrong = stage.anybody()
    wrong.token = "wrong"
    await wrong.get("/account/whoami")
    await wrong.get("/sync")
    await wrong.get("/profile/" + alice.user_id)
    await stage.anybody().get("/account/whoami", access_token=alice.token)
    await stage.anybody().get("/account/whoami", access_token="wrong")
