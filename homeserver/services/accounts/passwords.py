"""Hashing passwords with argon2id, in threads and only a few at once, and what a new password must be.

https://spec.matrix.org/v1.19/client-server-api/#password-management
"""

import asyncio
import os
import unicodedata
from collections.abc import Callable
from typing import Final, TypeVar

import argon2
from argon2.exceptions import InvalidHashError, VerificationError

from homeserver.config.schema import PasswordPolicyConfig, PasswordsConfig
from homeserver.core.errors import InvalidParam, UnavailableForNow, WeakPassword

T = TypeVar("T")

PASSWORD_CHARACTERS_MAX: Final = 512
_QUEUE_SECONDS: Final = 20.0


class Passwords:
    """Hashes and verifies passwords, and checks new ones against the policy."""

    def __init__(self, config: PasswordsConfig) -> None:
        self._policy = config.policy
        self._argon2 = argon2.PasswordHasher(
            time_cost=config.time_cost,
            memory_cost=config.memory_cost_kib,
            parallelism=config.parallelism,
            type=argon2.Type.ID,
        )
        self._slots = asyncio.Semaphore(min(4, os.cpu_count() or 1))
        self._hash_of_nobody: str | None = None

    async def hash(self, password: str) -> str:
        """The hash to store.

        Raises:
            InvalidParam: the password is too long.
            UnavailableForNow: too many passwords are waiting to be hashed.
        """
        normal = _normal(password)
        if normal is None:
            raise InvalidParam(f"A password has at most {PASSWORD_CHARACTERS_MAX} characters")
        return await self._in_thread(lambda: self._argon2.hash(normal))

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Whether a password is the one behind a hash. It takes as long if there is no hash, and is then False.

        Raises:
            UnavailableForNow: too many passwords are waiting to be verified.
        """
        normal = _normal(password)
        if password_hash is None or normal is None:
            if self._hash_of_nobody is None:
                self._hash_of_nobody = await self._in_thread(lambda: self._argon2.hash(os.urandom(16)))
            hash_of_nobody = self._hash_of_nobody
            await self._in_thread(lambda: self._matches(hash_of_nobody, normal or ""))
            return False
        return await self._in_thread(lambda: self._matches(password_hash, normal))

    def needs_rehash(self, password_hash: str) -> bool:
        """Whether a hash was made with other settings than today's."""
        return self._argon2.check_needs_rehash(password_hash)

    def check_policy(self, password: str) -> None:
        """Checks a new password.

        Raises:
            WeakPassword: it does not meet the policy.
            InvalidParam: it is too long.
        """
        if len(password) > PASSWORD_CHARACTERS_MAX:
            raise InvalidParam(f"A password has at most {PASSWORD_CHARACTERS_MAX} characters")
        weakness = _weakness(password, self._policy)
        if weakness is not None:
            raise WeakPassword(weakness)

    def _matches(self, password_hash: str, password: str) -> bool:
        try:
            return self._argon2.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(_QUEUE_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            raise UnavailableForNow("Too many passwords are being checked") from None
        try:
            return await asyncio.to_thread(work)
        finally:
            self._slots.release()


def _normal(password: str) -> str | None:
    """The password in the one form that all keyboards lead to (NFC); None for what no account has."""
    if len(password) > PASSWORD_CHARACTERS_MAX:
        return None
    return unicodedata.normalize("NFC", password)


def _weakness(password: str, policy: PasswordPolicyConfig) -> str | None:
    """What the password lacks."""
    if len(password) < policy.minimum_length:
        return f"The password must have at least {policy.minimum_length} characters"
    if policy.require_digit and not any(character.isdigit() for character in password):
        return "The password must have a digit"
    if policy.require_symbol and all(character.isalnum() for character in password):
        return "The password must have a character that is neither letter nor digit"
    if policy.require_lowercase and not any(character.islower() for character in password):
        return "The password must have a lower-case letter"
    if policy.require_uppercase and not any(character.isupper() for character in password):
        return "The password must have an upper-case letter"
    return None
