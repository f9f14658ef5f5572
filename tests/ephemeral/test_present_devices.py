"""Which devices are present, and that little is written of them."""

from homeserver.core.ids import UserId
from homeserver.services.ephemeral.present_devices import BATCH_MAX, Due, PresentDevices
from storage.presence import PresenceSource
from tests.web.harness import ManualClock

ALICE = UserId("@alice:test")
OFFLINE_SECONDS = 30.0


class Watched:
    """The devices of a process, and a clock."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.devices = PresentDevices(clock=self.clock, offline_seconds=OFFLINE_SECONDS)

    def sync(self, presence: str, *, device: str = "A", user: UserId = ALICE) -> None:
        """A sync that answers at once."""
        self.devices.begin_sync(user, device, presence=presence)
        self.devices.end_sync(user, device)

    def due(self) -> Due:
        """What a flush would write."""
        return self.devices.take_changed()

    def after(self, seconds: float) -> Due:
        """What a flush would write after a time."""
        self.clock.advance(seconds)
        self.devices.mark_overdue()
        return self.due()


def told(due: Due) -> dict[str, str]:
    return {source.device_id: source.presence for source in due.sources}


def test_a_device_that_begins_to_sync_is_told_once() -> None:
    watched = Watched()
    watched.sync("online")
    due = watched.due()
    assert told(due) == {"A": "online"}
    assert due.active_ts == {ALICE: watched.clock.now_ms()}
    for _ in range(20):
        watched.sync("online")
        watched.clock.advance(1)
        assert watched.due().users == frozenset()


def test_a_device_that_stays_is_renewed_each_minute() -> None:
    watched = Watched()
    watched.sync("online")
    watched.due()
    renewals = 0
    for _ in range(60):
        watched.sync("online")
        renewals += len(watched.after(5).sources)
    assert renewals == 5


def test_a_long_sync_is_presence_all_along() -> None:
    watched = Watched()
    watched.devices.begin_sync(ALICE, "A", presence="online")
    watched.due()
    assert told(watched.after(200)) == {"A": "online"}, "renewed"
    watched.devices.end_sync(ALICE, "A")
    assert told(watched.after(OFFLINE_SECONDS - 1)) == {}
    assert told(watched.after(2)) == {"A": "offline"}
    assert told(watched.after(100)) == {}


def test_two_syncs_of_a_device_at_once() -> None:
    watched = Watched()
    watched.devices.begin_sync(ALICE, "A", presence="online")
    watched.devices.begin_sync(ALICE, "A", presence="online")
    watched.devices.end_sync(ALICE, "A")
    watched.due()
    assert told(watched.after(OFFLINE_SECONDS + 1)) == {}
    watched.devices.end_sync(ALICE, "A")
    assert told(watched.after(OFFLINE_SECONDS + 1)) == {"A": "offline"}


def test_a_change_is_told_at_once_and_one_back_again_not_at_all() -> None:
    watched = Watched()
    watched.sync("online")
    watched.due()
    watched.sync("unavailable")
    assert told(watched.due()) == {"A": "unavailable"}
    watched.sync("online")
    watched.sync("unavailable")
    assert told(watched.due()) == {}


def test_a_device_that_was_written_as_offline_is_not_written_again() -> None:
    watched = Watched()
    watched.devices.note_written(PresenceSource(user_id=ALICE, device_id="A", presence="offline"))
    assert watched.due().users == frozenset()
    assert watched.after(OFFLINE_SECONDS + 1).users == frozenset()


def test_devices_are_told_apart() -> None:
    watched = Watched()
    watched.sync("online", device="A")
    watched.sync("unavailable", device="B")
    assert told(watched.due()) == {"A": "online", "B": "unavailable"}
    watched.clock.advance(OFFLINE_SECONDS - 1)
    watched.sync("unavailable", device="B")
    assert told(watched.after(2)) == {"A": "offline"}


def test_activity_is_written_once_a_minute() -> None:
    watched = Watched()
    written = []
    for _ in range(300):
        watched.devices.note_activity(ALICE)
        written += watched.due().active_ts.values()
        watched.clock.advance(1)
    assert len(written) == 5
    assert written == sorted(written)


def test_becoming_online_is_activity_and_staying_so_is_not() -> None:
    watched = Watched()
    watched.sync("unavailable")
    assert watched.due().active_ts == {}
    watched.clock.advance(1)
    watched.sync("online")
    assert watched.due().active_ts == {ALICE: watched.clock.now_ms()}
    watched.clock.advance(100)
    watched.sync("online")
    assert watched.due().active_ts == {}


def test_what_could_not_be_written_is_taken_again() -> None:
    watched = Watched()
    watched.sync("online")
    due = watched.due()
    watched.devices.put_back(due)
    again = watched.due()
    assert told(again) == {"A": "online"}
    assert again.active_ts == due.active_ts
    gone = watched.after(OFFLINE_SECONDS + 1)
    watched.devices.put_back(gone)
    assert told(watched.due()) == {"A": "offline"}
    assert watched.due().users == frozenset()


def test_what_was_written_elsewhere_is_not_written_again() -> None:
    watched = Watched()
    watched.devices.note_written(PresenceSource(user_id=ALICE, device_id="A", presence="unavailable"))
    assert watched.due().users == frozenset()
    watched.sync("unavailable")
    assert watched.due().users == frozenset()
    assert told(watched.after(OFFLINE_SECONDS + 1)) == {"A": "offline"}


def test_many_devices_come_in_batches() -> None:
    watched = Watched()
    for number in range(BATCH_MAX + 10):
        watched.sync("online", user=UserId(f"@user{number}:test"))
    first, second = watched.due(), watched.due()
    assert (len(first.sources), len(second.sources)) == (BATCH_MAX, 10)
    assert len(first.active_ts) == BATCH_MAX
    assert watched.due().users == frozenset()
