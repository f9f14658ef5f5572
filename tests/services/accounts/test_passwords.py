"""Hashing passwords, and what a new one must be."""

import asyncio

import pytest

from homeserver.config.schema import PasswordPolicyConfig, PasswordsConfig
from homeserver.core.errors import InvalidParam, WeakPassword
from homeserver.services.accounts.passwords import Passwords

CHEAP = PasswordsConfig(time_cost=1, memory_cost_kib=8)


async def test_a_hash_opens_to_its_password_alone() -> None:
    passwords = Passwords(CHEAP)
    password_hash = await passwords.hash("secret")
    assert password_hash.startswith("$argon2id$")
    assert "secret" not in password_hash
    assert await passwords.hash("secret") != password_hash
    assert await passwords.verify("secret", password_hash)
    for wrong in ("Secret", "secret ", "", "x" * 10_000):
        assert not await passwords.verify(wrong, password_hash)


@pytest.mark.parametrize("password_hash", [None, "", "nonsense", "$argon2id$v=19$m=8,t=1,p=1$AAAA$AAAA"])
async def test_nothing_opens_what_is_no_hash(password_hash: str | None) -> None:
    for password in ("", "secret"):
        assert not await Passwords(CHEAP).verify(password, password_hash)


async def test_other_settings_ask_for_another_hash() -> None:
    password_hash = await Passwords(CHEAP).hash("secret")
    assert not Passwords(CHEAP).needs_rehash(password_hash)
    assert Passwords(PasswordsConfig(time_cost=2, memory_cost_kib=8)).needs_rehash(password_hash)
    assert Passwords(PasswordsConfig(time_cost=1, memory_cost_kib=16)).needs_rehash(password_hash)


async def test_the_event_loop_goes_on_meanwhile() -> None:
    passwords = Passwords(PasswordsConfig(time_cost=3, memory_cost_kib=32 * 1024))
    turns = 0
    async with asyncio.TaskGroup() as group:
        hashing = [group.create_task(passwords.hash("secret")) for _ in range(3)]
        while not all(task.done() for task in hashing):
            turns += 1
            await asyncio.sleep(0.001)
    assert turns > 5


@pytest.mark.parametrize(
    ("policy", "good", "bad"),
    [
        (PasswordPolicyConfig(minimum_length=4), "abcd", "abc"),
        (PasswordPolicyConfig(minimum_length=1, require_digit=True), "a1", "ab"),
        (PasswordPolicyConfig(minimum_length=1, require_symbol=True), "a-", "a1"),
        (PasswordPolicyConfig(minimum_length=1, require_lowercase=True), "Aa", "A1-"),
        (PasswordPolicyConfig(minimum_length=1, require_uppercase=True), "aA", "a1-"),
    ],
)
async def test_the_policy(policy: PasswordPolicyConfig, good: str, bad: str) -> None:
    passwords = Passwords(PasswordsConfig(time_cost=1, memory_cost_kib=8, policy=policy))
    passwords.check_policy(good)
    with pytest.raises(WeakPassword):
        passwords.check_policy(bad)
    with pytest.raises(InvalidParam):
        passwords.check_policy("aA1-" * 200)
