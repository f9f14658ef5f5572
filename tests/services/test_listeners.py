"""Users' places in the hub: told of what they listen to, of no more, and given up when nobody syncs any more."""

from homeserver.core.ids import UserId
from homeserver.services.stream.hub import Hub
from homeserver.services.sync.listeners import KEPT_SECONDS, Listeners
from storage.bus.memory import MemoryBus
from storage.database import Database
from tests.fast_clock import FastClock

ALICE, BOB, CAROL = UserId("@alice:a"), UserId("@bob:a"), UserId("@carol:a")


class Places(Hub):
    """A hub that says who would be notified."""

    def listened(self) -> dict[str, int]:
        """How many listen to each key."""
        return {key: len(notified) for key, notified in self._waiters.items()}

    def news(self, key: str, position: int) -> None:
        """Something new, which may be read."""
        self._pass_on(key, position)


def hub(clock: FastClock) -> Places:
    return Places(db=Database("postgresql://nowhere/"), bus=MemoryBus(), clock=clock, streams=())


async def test_all_syncs_of_a_user_are_told() -> None:
    clock = FastClock(speed=1)
    places = hub(clock)
    listeners = Listeners(hub=places, clock=clock)
    keys = frozenset(("user:@alice:a", "room:!a:a"))
    with listeners.of(ALICE, keys).wait() as one, listeners.of(ALICE, keys).wait() as two:
        places.news("room:!a:a", 7)
        assert await one.wait(1, upto=7)
        assert await two.wait(1, upto=7)
    with listeners.of(ALICE, keys).wait() as later:
        assert not await later.wait(0.01), "what came before is in the window that is read"
    assert places.listened() == {"user:@alice:a": 1, "room:!a:a": 1}


async def test_whoever_comes_to_another_room_listens_to_it() -> None:
    clock = FastClock(speed=1)
    places = hub(clock)
    listeners = Listeners(hub=places, clock=clock)
    listeners.of(ALICE, frozenset(("room:!a:a", "room:!b:a")))
    listeners.of(ALICE, frozenset(("room:!b:a", "room:!c:a")))
    assert places.listened() == {"room:!b:a": 1, "room:!c:a": 1}


async def test_a_sync_that_waits_goes_on_hearing_of_a_room_that_another_does_not_know() -> None:
    clock = FastClock(speed=1)
    places = hub(clock)
    listeners = Listeners(hub=places, clock=clock)
    new, old = frozenset(("room:!a:a", "room:!new:a")), frozenset(("room:!a:a",))
    with listeners.of(ALICE, new).wait() as waiter:
        listeners.of(ALICE, old)
        places.news("room:!new:a", 3)
        assert await waiter.wait(1)
    listeners.of(ALICE, old)
    assert places.listened() == {"room:!a:a": 1}


async def test_places_are_given_up_by_those_who_are_gone() -> None:
    clock = FastClock(speed=1)
    places = hub(clock)
    listeners = Listeners(hub=places, clock=clock)
    listeners.of(ALICE, frozenset(("room:!alice:a",)))
    with listeners.of(BOB, frozenset(("room:!bob:a",))).wait():
        clock.advance(KEPT_SECONDS + 1)
        listeners.of(CAROL, frozenset(("room:!carol:a",)))
    assert set(places.listened()) == {"room:!bob:a", "room:!carol:a"}


async def test_places_are_bounded() -> None:
    clock = FastClock(speed=1)
    places = hub(clock)
    listeners = Listeners(hub=places, clock=clock, keys_max=50)
    for number in range(200):
        listeners.of(UserId(f"@user{number}:a"), frozenset((f"user:{number}", f"room:{number}")))
    assert len(places.listened()) <= 54
