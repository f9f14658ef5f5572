"""Keys as clients make them, with real signatures."""

import secrets
from collections.abc import Iterable
from typing import Any

from homeserver.core.signing import SigningKey, sign_json
from tests.api.server import Client


def new_key(version: str) -> SigningKey:
    """A signing key that is called so, as a device's is by the device id."""
    return SigningKey.from_seed(version, secrets.token_bytes(32))


def device_keys(client: Client, key: SigningKey, **members: Any) -> dict[str, Any]:
    """The identity keys of a client's device, signed by it."""
    keys = {
        "user_id": client.user_id,
        "device_id": client.device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {
            f"ed25519:{client.device_id}": key.verify_key.encode(),
            f"curve25519:{client.device_id}": "curve",
        },
        **members,
    }
    return sign_json(keys, client.user_id, key)


async def upload_device(client: Client) -> SigningKey:
    """Uploads identity keys for a client's device; the key that signs for it."""
    key = new_key(client.device_id)
    await client.post("/keys/upload", {"device_keys": device_keys(client, key)})
    return key


def one_time_keys(*names: str, **members: Any) -> dict[str, Any]:
    """Signed one-time keys."""
    return {
        f"signed_curve25519:{name}": {"key": f"key {name}", "signatures": {"@a:b": {"ed25519:D": "sig"}}, **members}
        for name in names
    }


class CrossSigner:
    """A user's three cross-signing keys."""

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.master, self.self_signing, self.user_signing = (_named_by_itself() for _ in range(3))

    def body(self, usages: Iterable[str] = ("master", "self_signing", "user_signing")) -> dict[str, Any]:
        """The body of an upload."""
        return {f"{usage}_key": self.key_json(usage) for usage in usages}

    def key_json(self, usage: str) -> dict[str, Any]:
        """A public key; all but the master key are signed by that."""
        key = {"master": self.master, "self_signing": self.self_signing, "user_signing": self.user_signing}[usage]
        public = key.verify_key.encode()
        json = {"user_id": self.user_id, "usage": [usage], "keys": {f"ed25519:{public}": public}}
        return json if usage == "master" else signed_with(json, self.user_id, self.master)

    @property
    def master_public(self) -> str:
        """The master key in base64."""
        return self.master.verify_key.encode()


def _named_by_itself() -> SigningKey:
    return new_key("unnamed")


def signed_with(json: dict[str, Any], user_id: str, key: SigningKey) -> dict[str, Any]:
    """An object signed by a cross-signing key, which is called like its public half."""
    signature = sign_json(json, user_id, key)["signatures"][user_id][key.key_id]
    signatures = {signer: dict(by_key) for signer, by_key in json.get("signatures", {}).items()}
    signatures.setdefault(user_id, {})[f"ed25519:{key.verify_key.encode()}"] = signature
    return {**json, "signatures": signatures}
