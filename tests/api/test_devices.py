"""Device management: https://spec.matrix.org/v1.19/client-server-api/#device-management."""

from typing import Any

import pytest

from tests.api.server import Client, Server, password_auth, refused


async def test_devices_are_listed(server: Server, alice: Client) -> None:
    other = await server.login("alice", device_id="OTHER", initial_device_display_name="Other")
    devices = {device["device_id"]: device for device in (await alice.get("/devices"))["devices"]}
    assert set(devices) == {alice.device_id, "OTHER"}
    assert devices["OTHER"]["display_name"] == "Other"
    assert devices["OTHER"]["last_seen_ip"] == "192.0.2.1"
    assert devices["OTHER"]["last_seen_ts"] > 0
    assert "display_name" not in devices[alice.device_id]
    assert await other.get("/devices/OTHER") == devices["OTHER"]


async def test_devices_of_others_are_not_seen(server: Server, alice: Client, bob: Client) -> None:
    path = f"/devices/{bob.device_id}"
    refused(await alice.call("GET", path), 404, "M_NOT_FOUND")
    refused(await alice.call("PUT", path, {"display_name": "x"}), 404, "M_NOT_FOUND")
    await alice.delete(path, {"auth": password_auth("alice")})
    assert await bob.get("/account/whoami")
    await alice.post("/delete_devices", {"devices": [bob.device_id], "auth": password_auth("alice")})
    assert await bob.get("/account/whoami")


async def test_renaming(alice: Client) -> None:
    path = f"/devices/{alice.device_id}"
    await alice.put(path, {"display_name": "Telephone ☎"})
    assert (await alice.get(path))["display_name"] == "Telephone ☎"
    await alice.put(path, {})
    assert (await alice.get(path))["display_name"] == "Telephone ☎"


@pytest.mark.parametrize(
    ("device", "body", "status", "errcode"),
    [
        ("UNKNOWN", {"display_name": "x"}, 404, "M_NOT_FOUND"),
        ("UNKNOWN", {}, 404, "M_NOT_FOUND"),
        ("", {"display_name": 1}, 400, "M_BAD_JSON"),
        ("", {"display_name": None}, 400, "M_BAD_JSON"),
        ("", {"display_name": "x" * 300}, 400, "M_INVALID_PARAM"),
        ("", {"display_name": "a\0b"}, 400, "M_INVALID_PARAM"),
        ("", [], 400, "M_BAD_JSON"),
    ],
)
async def test_wrong_names(alice: Client, device: str, body: Any, status: int, errcode: str) -> None:
    path = f"/devices/{device or alice.device_id}"
    refused(await alice.call("PUT", path, body), status, errcode)
    assert "display_name" not in await alice.get(f"/devices/{alice.device_id}")


async def test_a_device_is_removed_with_its_session(server: Server, alice: Client) -> None:
    other = await server.login("alice", refresh_token=True)
    path = f"/devices/{other.device_id}"
    assert (await alice.call("DELETE", path)).status == 401
    assert (await alice.call("DELETE", path, {})).status == 401
    wrong = await alice.call("DELETE", path, {"auth": password_auth("alice", "wrong")})
    refused(wrong, 401, "M_FORBIDDEN")
    assert await other.get("/account/whoami")
    await alice.delete(path, {"auth": password_auth("alice")})
    refused(await alice.call("GET", path), 404, "M_NOT_FOUND")
    refused(await other.call("GET", "/account/whoami"), 401, "M_UNKNOWN_TOKEN")
    reply = await server.request("POST", "/refresh", json={"refresh_token": other.refresh_token})
    refused(reply, 401, "M_UNKNOWN_TOKEN")
    await alice.delete(path, {"auth": password_auth("alice")})


async def test_many_devices_are_removed(server: Server, alice: Client) -> None:
    others = [await server.login("alice") for _ in range(3)]
    devices = [other.device_id for other in others[:2]] + ["UNKNOWN"]
    await alice.post("/delete_devices", {"devices": devices, "auth": password_auth("alice")})
    left = {device["device_id"] for device in (await alice.get("/devices"))["devices"]}
    assert left == {alice.device_id, others[2].device_id}


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"devices": "X"}, "M_BAD_JSON"),
        ({"devices": [1]}, "M_BAD_JSON"),
        ({"devices": [""]}, "M_INVALID_PARAM"),
        ({"devices": ["X"] * 2000}, "M_BAD_JSON"),
    ],
)
async def test_wrong_lists_of_devices(alice: Client, body: Any, errcode: str) -> None:
    refused(await alice.call("POST", "/delete_devices", body), 400, errcode)


async def test_where_a_device_was_last_seen_is_written_now_and_then(server: Server, alice: Client) -> None:
    async def seen() -> tuple[str, int]:
        device = (await alice.get("/devices"))["devices"][0]
        return device["last_seen_ip"], device["last_seen_ts"]

    await seen()
    await server.accounts.last_seen.flush()
    first = await seen()
    alice.ip = "198.51.100.7"
    assert await seen() == first
    await server.accounts.last_seen.flush()
    assert await seen() == first, "it has just been written down"
    server.clock.advance(600)
    await alice.get("/account/whoami")
    await server.accounts.last_seen.flush()
    ip, ts = await seen()
    assert ip == "198.51.100.7"
    assert ts >= first[1] + 600_000
    alice.ip = "203.0.113.9"
    await alice.get("/account/whoami")
    await server.accounts.last_seen.flush()
    assert (await seen())[0] == "198.51.100.7", "not again so soon"
