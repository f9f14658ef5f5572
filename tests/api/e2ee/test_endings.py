"""What is left of a user's keys and messages when sessions end, all at once, and when the account does.

https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logoutall
https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpassword
https://spec.matrix.org/v1.19/client-server-api/#account-deactivation
"""

from typing import Any

import asyncpg
import pytest

from tests.api.e2ee.keys import CrossSigner, device_keys, new_key, one_time_keys, signed_with
from tests.api.server import Client, Site, password_auth

OF_DEVICES = ("device_keys", "one_time_keys", "fallback_keys", "key_count_changes")
ROOM = "!room:test"


class Life:
    """A user with two devices and all that can be kept for them; another user has verified her."""

    def __init__(self, site: Site, alice: Client, bob: Client, second: Client) -> None:
        self.site, self.alice, self.bob, self.second = site, alice, bob, second

    async def begin(self) -> None:
        """Makes all of it."""
        alices, bobs = CrossSigner(self.alice.user_id), CrossSigner(self.bob.user_id)
        for user, signer in ((self.alice, alices), (self.bob, bobs)):
            await user.post("/keys/device_signing/upload", signer.body())
        for number, device in enumerate((self.alice, self.second)):
            keys = device_keys(device, new_key(device.device_id))
            one_time, fallback = one_time_keys(f"A{number}"), one_time_keys(f"F{number}")
            body = {"device_keys": keys, "one_time_keys": one_time, "fallback_keys": fallback}
            await device.post("/keys/upload", body)
            signed = signed_with(keys, self.alice.user_id, alices.self_signing)
            await self._sign(self.alice, self.alice, device.device_id, signed)
        for signer, signed_user, key in (
            (self.bob, alices, bobs.user_signing),
            (self.alice, bobs, alices.user_signing),
        ):
            signed = signed_with(signed_user.key_json("master"), signer.user_id, key)
            await self._sign(signer, signed_user, signed_user.master_public, signed)
        version = (await self.alice.post("/room_keys/version", {"algorithm": "m.test", "auth_data": {}}))["version"]
        counts = {"first_message_index": 1, "forwarded_count": 0, "is_verified": True}
        path = f"/room_keys/keys/{ROOM}/session"
        reply = await self.alice.call("PUT", path, {**counts, "session_data": {}}, version=version)
        assert reply.json["count"] == 1
        await self.bob.put("/sendToDevice/m.test/1", {"messages": {self.alice.user_id: {"*": {"a": 1}}}})

    async def _sign(self, signer: Client, owner: Client | CrossSigner, key_id: str, signed: Any) -> None:
        answer = await signer.post("/keys/signatures/upload", {owner.user_id: {key_id: signed}})
        assert answer == {"failures": {}}

    async def told(self) -> Any:
        """What Bob is told of Alice's keys."""
        return await self.bob.post("/keys/query", {"device_keys": {self.alice.user_id: []}})


@pytest.fixture
async def life(site: Site, alice: Client, bob: Client) -> Life:
    """The user."""
    life = Life(site, alice, bob, await site.login("alice"))
    await life.begin()
    return life


async def kept(database_url: str) -> dict[str, int]:
    """How many rows there are of Alice, of those tables that have some."""
    of_users = (*OF_DEVICES, "to_device_messages", "devices", "cross_signing_keys", "key_backup_keys")
    connection = await asyncpg.connect(database_url)
    try:
        counts = {
            table: await connection.fetchval(f"SELECT count(*) FROM {table} WHERE user_id = '@alice:test'")
            for table in of_users
        }
        for table, condition in (
            ("key_signatures", "'@alice:test' IN (user_id, signer_id)"),
            ("signed_users", "signer_id = '@alice:test'"),
            ("key_backups", "user_id = '@alice:test' AND NOT deleted"),
        ):
            counts[table] = await connection.fetchval(f"SELECT count(*) FROM {table} WHERE {condition}")
    finally:
        await connection.close()
    return {table: count for table, count in counts.items() if count}


async def test_all_of_it_is_there(life: Life, database_url: str) -> None:
    assert await kept(database_url) == {
        **dict.fromkeys(OF_DEVICES, 2),
        "to_device_messages": 2,
        "devices": 2,
        "cross_signing_keys": 3,
        "key_backup_keys": 1,
        # Two devices by Alice; either master key by the other user.
        "key_signatures": 4,
        "signed_users": 1,
        "key_backups": 1,
    }


async def test_logging_out_everywhere(life: Life, database_url: str) -> None:
    """What belongs to devices goes; what belongs to the user waits for the next one."""
    await life.second.post("/logout/all")
    await check_without_devices(life, database_url, devices=0)


async def test_another_password(life: Life, database_url: str) -> None:
    """The device that changes it stays, with all its keys."""
    body = {"new_password": "another long password", "logout_devices": True, "auth": password_auth("alice")}
    await life.second.post("/account/password", body)
    await check_without_devices(life, database_url, devices=1)
    assert list((await life.told())["device_keys"][life.alice.user_id]) == [life.second.device_id]
    assert len((await life.second.get("/sync"))["to_device"]["events"]) == 1


async def test_a_password_changed_alone(life: Life, database_url: str) -> None:
    before = await kept(database_url)
    body = {"new_password": "another long password", "logout_devices": False, "auth": password_auth("alice")}
    await life.second.post("/account/password", body)
    assert await kept(database_url) == before


async def test_the_end_of_an_account(life: Life, database_url: str) -> None:
    """Without `erase` the user's identity stays known: messages in rooms are trusted by it."""
    await life.alice.post("/account/deactivate", {"auth": password_auth("alice")})
    await check_without_devices(life, database_url, devices=0)


async def test_erasing_an_account(life: Life, database_url: str) -> None:
    """Nothing is left, and nobody is told of anything; what is Bob's stays, but for Alice's signature."""
    await life.alice.post("/account/deactivate", {"auth": password_auth("alice"), "erase": True})
    assert await kept(database_url) == {}
    told = await life.told()
    assert told["device_keys"] == {life.alice.user_id: {}}
    assert told["master_keys"] == told["self_signing_keys"] == {}
    own = await life.bob.post("/keys/query", {"device_keys": {life.bob.user_id: []}})
    assert list(own["master_keys"]) == list(own["user_signing_keys"]) == [life.bob.user_id]


async def check_without_devices(life: Life, database_url: str, *, devices: int) -> None:
    """Checks what is left when all devices are gone but so many, which can be the second one."""
    of_devices = {**dict.fromkeys(OF_DEVICES, devices), "to_device_messages": devices, "devices": devices}
    assert await kept(database_url) == {
        **{table: count for table, count in of_devices.items() if count},
        "cross_signing_keys": 3,
        "key_backup_keys": 1,
        "key_signatures": 2 + devices,
        "signed_users": 1,
        "key_backups": 1,
    }
    told = await life.told()
    assert list(told["master_keys"]) == list(told["self_signing_keys"]) == [life.alice.user_id]
