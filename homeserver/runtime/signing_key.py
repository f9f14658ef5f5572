"""The key with which this server signs: a file in the data folder, made at the first start and shared by all workers.

https://spec.matrix.org/v1.19/appendices/#signing-details
"""

import os
import secrets
from pathlib import Path
from typing import Final

from homeserver.core.signing import SigningKey

FILE_NAME: Final = "signing.key"


def load_signing_key(data_dir: Path) -> SigningKey:
    """Reads the server's signing key, or makes one if there is none yet.

    The file has one line, `ed25519 a_name base64`, as other servers write it. Losing it means that no other server
    accepts this one's new events any more.

    Raises:
        InvalidParam: the file holds no key.
        OSError: it can be neither read nor made.
    """
    path = data_dir / FILE_NAME
    try:
        return SigningKey.parse(path.read_text(encoding="ascii").strip())
    except FileNotFoundError:
        pass
    data_dir.mkdir(parents=True, exist_ok=True)
    key = SigningKey.from_seed(f"a_{secrets.token_hex(3)}", secrets.token_bytes(32))
    # Written aside and linked into place: several processes may start at once, and one key must win.
    aside = data_dir / f"{FILE_NAME}.{secrets.token_hex(8)}"
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(key.format() + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, path)
    except FileExistsError:
        return SigningKey.parse(path.read_text(encoding="ascii").strip())
    finally:
        aside.unlink(missing_ok=True)
    return key
