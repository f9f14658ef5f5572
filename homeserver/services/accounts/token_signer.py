"""Access tokens: JSON Web Tokens signed with Ed25519, which name a user, a device and a session.

The signature makes tokens cheap to refuse; whether a session still lives is for the database to say
(`authentication.py`). Each token also holds a secret whose hash is stored with the session, so neither a copy of the
database nor the key alone is enough to make one.

https://www.rfc-editor.org/rfc/rfc7519
"""

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from homeserver.core.clock import Clock
from homeserver.core.errors import UnknownToken
from homeserver.core.ids import DeviceId, ServerName, UserId
from storage import token_keys
from storage.bounded_cache import BoundedCache
from storage.database import Database
from storage.token_keys import TokenKeyRow

_ALGORITHM: Final = "EdDSA"
_TOKEN_BYTES_MAX: Final = 4096
_VERIFIED_MAX: Final = 20_000
_TOKEN_BYTES: Final = 600
# How often an unknown key id may make us read the table.
_UNKNOWN_KEY_SECONDS: Final = 1.0

KEYS_FRESH_SECONDS: Final = 300.0
"""How long keys are used before the table is read again, so that a rotation reaches every process."""


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """What an access token says: the session and the pair of tokens that it belongs to, and its secret."""

    session_id: int
    pair_id: int
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys as they were read: the one that signs, when it was made, and those that verify, by id."""

    signing_id: str
    signing_ts: int
    signing: Ed25519PrivateKey
    verifying: dict[str, Ed25519PublicKey]
    read_at: float


class TokenSigner:
    """Signs and verifies access tokens with the keys in the database."""

    def __init__(self, *, db: Database, clock: Clock, server_name: ServerName) -> None:
        self._db = db
        self._clock = clock
        self._issuer = server_name
        self._keys: _Keys | None = None
        self._reading = asyncio.Lock()
        # What has been verified is true as long as its key is known.
        self._verified: BoundedCache[bytes, tuple[str, AccessClaims]] = BoundedCache(
            "access_tokens", weight_max=_VERIFIED_MAX, bytes_each=_TOKEN_BYTES
        )

    async def sign(
        self,
        claims: AccessClaims,
        *,
        user_id: UserId,
        device_id: DeviceId | None,
        issued_ts: int,
        expires_ts: int | None,
    ) -> str:
        """Makes an access token; times are milliseconds since the epoch."""
        keys = await self._current_keys()
        payload: dict[str, str | int] = {
            "iss": self._issuer,
            "sub": user_id,
            "sid": claims.session_id,
            "pair": claims.pair_id,
            "jti": claims.secret,
            "iat": issued_ts // 1000,
        }
        if device_id is not None:
            payload["device_id"] = device_id
        if expires_ts is not None:
            payload["exp"] = expires_ts // 1000
        return jwt.encode(payload, keys.signing, algorithm=_ALGORITHM, headers={"kid": keys.signing_id})

    async def verify(self, token: str) -> AccessClaims:
        """What a token says. Whether it has expired is not looked at: the session knows that better.

        Raises:
            UnknownToken: this server did not make it.
        """
        if len(token) > _TOKEN_BYTES_MAX:
            raise UnknownToken
        fingerprint = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        keys = await self._current_keys()
        cached = self._verified.get(fingerprint)
        if cached is not None and cached[0] in keys.verifying:
            return cached[1]
        key_id = _key_id_of(token)
        if key_id not in keys.verifying and self._clock.monotonic() - keys.read_at >= _UNKNOWN_KEY_SECONDS:
            keys = await self._read_keys(stale=keys)
        public_key = keys.verifying.get(key_id)
        if public_key is None:
            raise UnknownToken
        claims = _verified_claims(token, public_key, issuer=self._issuer)
        self._verified.put(fingerprint, (key_id, claims))
        return claims

    async def newest_key_ts(self) -> int:
        """When the key that signs was made, in milliseconds since the epoch."""
        return (await self._current_keys()).signing_ts

    async def rotate(self) -> str:
        """Makes a new signing key; its id. Tokens of older keys stay good until those are deleted.

        Other processes take it up within minutes.
        """
        key = _new_key(self._clock.now_ms())
        async with self._db.transaction() as conn:
            await token_keys.lock_token_keys(conn)
            await token_keys.insert_token_key(conn, key)
        self._keys = None
        return key.key_id

    async def _current_keys(self) -> _Keys:
        keys = self._keys
        if keys is not None and self._clock.monotonic() - keys.read_at < KEYS_FRESH_SECONDS:
            return keys
        return await self._read_keys(stale=keys)

    async def _read_keys(self, *, stale: _Keys | None) -> _Keys:
        """Reads the keys again, unless somebody else has done so since `stale` was read; makes the very first one."""
        async with asyncio.timeout(30), self._reading:
            if self._keys is not None and self._keys is not stale:
                return self._keys
            async with self._db.connection() as conn:
                rows = await token_keys.list_token_keys(conn)
            if not rows:
                rows = await self._make_first_key()
            signing = Ed25519PrivateKey.from_private_bytes(rows[0].private_key)
            verifying = {row.key_id: Ed25519PrivateKey.from_private_bytes(row.private_key).public_key() for row in rows}
            self._keys = _Keys(
                signing_id=rows[0].key_id,
                signing_ts=rows[0].created_ts,
                signing=signing,
                verifying=verifying,
                read_at=self._clock.monotonic(),
            )
            return self._keys

    async def _make_first_key(self) -> list[TokenKeyRow]:
        async with self._db.transaction() as conn:
            await token_keys.lock_token_keys(conn)
            rows = await token_keys.list_token_keys(conn)
            if not rows:
                rows = [_new_key(self._clock.now_ms())]
                await token_keys.insert_token_key(conn, rows[0])
        return rows


def _new_key(now_ms: int) -> TokenKeyRow:
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return TokenKeyRow(
        key_id=hashlib.sha256(public).hexdigest()[:16], private_key=key.private_bytes_raw(), created_ts=now_ms
    )


def _key_id_of(token: str) -> str:
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, UnicodeError, RecursionError):
        raise UnknownToken from None
    key_id = header.get("kid")
    if not isinstance(key_id, str):
        raise UnknownToken
    return key_id


def _verified_claims(token: str, public_key: Ed25519PublicKey, *, issuer: str) -> AccessClaims:
    try:
        payload = jwt.decode(
            token,
            public_key,
            algorithms=[_ALGORITHM],
            issuer=issuer,
            options={"verify_exp": False, "verify_iat": False, "require": ["iss", "sub", "sid", "pair", "jti"]},
        )
    except (jwt.PyJWTError, UnicodeError):
        raise UnknownToken from None
    return AccessClaims(session_id=payload["sid"], pair_id=payload["pair"], secret=payload["jti"])
