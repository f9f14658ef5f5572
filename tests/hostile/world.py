"""What there is when an endpoint is attacked: its attacker, somebody else, and a room of both, made for it alone."""

import hashlib
import hmac
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import quote

from tests.real_client import PASSWORD, Client, anonymous_client, new_user

SHARED_SECRET = "shared"

_numbers = itertools.count(1)


@dataclass
class World:
    """The people, and the parameters of paths and bodies by their names."""

    attacker: Client
    other: Client
    names: Mapping[str, str]


@asynccontextmanager
async def new_world(url: str, *, is_admin: bool) -> AsyncIterator[World]:
    """A world; its attacker is an administrator if the endpoint is for those."""
    number = next(_numbers)
    attackers = _administrator if is_admin else new_user
    async with attackers(url, f"attacker{number}") as attacker, new_user(url, f"other{number}") as other:
        room_id = await attacker.create_room(preset="public_chat", name="x", room_alias_name=f"alias{number}")
        await other.post(f"/rooms/{quote(room_id)}/join")
        event_id = await other.send(room_id, "hello")
        stored = await attacker.post(f"/user/{attacker.user_id}/filter", {})
        yield World(
            attacker,
            other,
            {
                "user_id": attacker.user_id,
                "other": other.user_id,
                "room_id": room_id,
                "room_id_or_alias": room_id,
                "room_alias": f"#alias{number}:test",
                "event_id": event_id,
                "device_id": attacker.device_id,
                "filter_id": stored["filter_id"],
                "txn_id": "txn",
                "event_type": "m.room.message",
                "receipt_type": "m.read",
                "type": "org.example.x",
                "tag": "u.x",
                "key_name": "displayname",
                "kind": "override",
                "scope": "global",
                "rule_id": "mine",
                "auth_type": "m.login.dummy",
                "state_key": "",
                "rel_type": "m.thread",
                "session": "x",
                "username": f"new{number}",
                "password": PASSWORD,
            },
        )


@asynccontextmanager
async def _administrator(url: str, localpart: str) -> AsyncIterator[Client]:
    """A client of a new administrator, made with the shared secret."""
    path = "/_synapse/admin/v1/register"
    async with anonymous_client(url) as client:
        nonce = (await client.get(path))["nonce"]
        signed = "\0".join((nonce, localpart, PASSWORD, "admin")).encode()
        mac = hmac.new(SHARED_SECRET.encode(), signed, hashlib.sha1).hexdigest()
        body = {"nonce": nonce, "username": localpart, "password": PASSWORD, "admin": True, "mac": mac}
        session = await client.post(path, body)
        client.user_id, client.device_id = session["user_id"], session["device_id"]
        client.token = session["access_token"]
        yield client
