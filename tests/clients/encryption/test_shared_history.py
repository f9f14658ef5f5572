"""Who invites somebody shares the keys of what was said before.

The server knows nothing of it: the keys are an encrypted attachment, of which an encrypted message to devices tells.

https://spec.matrix.org/v1.19/client-server-api/#sharing-keys-between-users
"""

import pytest

from tests.clients.encryption.stage import Stage

pytestmark = pytest.mark.seconds_max(180)


async def test_an_invited_user_reads_what_was_said_before(stage: Stage) -> None:
    alice, bob = await stage.couple()
    for person in (alice, bob):
        await person.call("bootstrapCrossSigning")
    room_id = await stage.room_of(alice)
    for body in ("one", "two"):
        await alice.send(room_id, body)
    await alice.call("invite", room_id, bob.user_id, {"shareEncryptedHistory": True})
    await bob.call("untilInvited", room_id)
    await bob.join(room_id, stage.home.name, acceptSharedHistory=True)
    await bob.call("scrollBack", room_id)
    await bob.until_read(room_id, "one", "two")
