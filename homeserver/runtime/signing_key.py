"""The keys with which this server signs: files in the data folder, made at the first start and shared by all workers.

`signing.key` holds those in use, one a line: the first signs, all are published. `signing.key.old` holds those that are
no longer used, so that what they have signed can still be checked.

https://spec.matrix.org/v1.19/appendices/#signing-details
"""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from homeserver.core.errors import InvalidParam
from homeserver.core.own_keys import OwnKeys, RetiredKey
from homeserver.core.signing import SigningKey, VerifyKey

FILE_NAME: Final = "signing.key"
OLD_FILE_NAME: Final = "signing.key.old"
RESTART_MS: Final = 600_000
"""How long an operator may take to restart the server after changing its key."""


def load_signing_key(data_dir: Path) -> SigningKey:
    """The key that signs; raises as `load_own_keys`."""
    return load_own_keys(data_dir).signing


def load_own_keys(data_dir: Path) -> OwnKeys:
    """Reads the server's keys, or makes one if there is none yet.

    A line is `ed25519 a_name base64`, as other servers write it. Losing the file means that no other server accepts
    this one's new events any more.

    Raises:
        InvalidParam: a file holds something else.
        OSError: the keys can be neither read nor made.
    """
    path = data_dir / FILE_NAME
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        _create(path, new_signing_key().format() + "\n")
    active = _read_active(path)
    in_use = {key.key_id for key in active}
    retired = _read_retired(data_dir / OLD_FILE_NAME)
    return OwnKeys(active=active, retired=tuple(each for each in retired if each.key.key_id not in in_use))


def new_signing_key() -> SigningKey:
    """A key that nobody has had before, with a name that the server's other keys do not bear."""
    return SigningKey.from_seed(f"a_{secrets.token_hex(3)}", secrets.token_bytes(32))


def rotate_signing_key(data_dir: Path, *, now_ms: int) -> SigningKey:
    """Retires all keys in use and makes a new one, which is returned; the server takes it when it starts next.

    Until then it signs with an old one, which therefore expires only `RESTART_MS` from now.

    Raises:
        InvalidParam, OSError: as `load_own_keys`.
    """
    path, old_path = data_dir / FILE_NAME, data_dir / OLD_FILE_NAME
    own, key = load_own_keys(data_dir), new_signing_key()
    retired = (*own.retired, *(RetiredKey(old.verify_key, now_ms + RESTART_MS) for old in own.active))
    # The old file first: should the second step fail, keys stand in both and go on being used.
    _replace(old_path, "".join(f"{_format_retired(each)}\n" for each in retired))
    _replace(path, key.format() + "\n")
    return key


def describe_keys(keys: OwnKeys) -> Iterator[str]:
    """A line for each key: its id, its public half, and what it is for. Nothing of it is secret."""
    for key in keys.active:
        yield f"{key.key_id} {key.verify_key.encode()} {'signs' if key is keys.signing else 'published'}"
    for retired in keys.retired:
        yield f"{retired.key.key_id} {retired.key.encode()} retired at {retired.expired_ts}"


def _format_retired(retired: RetiredKey) -> str:
    """The line of a retired key: its algorithm, version and public half, and when it expires."""
    algorithm, _, version = retired.key.key_id.partition(":")
    return f"{algorithm} {version} {retired.key.encode()} {retired.expired_ts}"


def _read_active(path: Path) -> tuple[SigningKey, ...]:
    keys = tuple(SigningKey.parse(line) for line in _lines(path))
    if not keys:
        raise InvalidParam(f"There is no signing key in {path}")
    if len({key.key_id for key in keys}) < len(keys):
        raise InvalidParam(f"Two signing keys in {path} bear the same name")
    return keys


def _read_retired(path: Path) -> tuple[RetiredKey, ...]:
    if not path.exists():
        return ()
    retired = []
    for line in _lines(path):
        algorithm, version, key, expired_ts = (*line.split(), "", "", "", "")[:4]
        if not (expired_ts.isascii() and expired_ts.isdigit()):
            raise InvalidParam("A retired key is written as: ed25519 <version> <base64> <milliseconds>")
        verify_key = VerifyKey.parse(key_id=f"{algorithm}:{version}", key_base64=key)
        retired.append(RetiredKey(verify_key, int(expired_ts)))
    return tuple(retired)


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="ascii").splitlines() if line.strip()]


def _create(path: Path, text: str) -> None:
    """Writes a file unless it is there: several processes may start at once, and one key must win."""
    aside = _write_aside(path, text)
    try:
        os.link(aside, path)
    except FileExistsError:
        pass
    finally:
        aside.unlink(missing_ok=True)


def _replace(path: Path, text: str) -> None:
    """Writes a file in the place of what was there; whoever reads it sees one or the other."""
    aside = _write_aside(path, text)
    aside.replace(path)


def _write_aside(path: Path, text: str) -> Path:
    aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return aside
