import time
from storage.database import measure_database, _StatementTimer
import storage.database as d
from tests.api.server import Site
from tests.api.sync.api import *
import collections
import pytest

LOG=None
orig=_StatementTimer.__exit__
def ex(self,*a):
    if LOG is not None and d._usage.get() is not None:
        LOG.append((self._name, round((time.perf_counter()-self._started)*1000,2)))
    return orig(self,*a)
_StatementTimer.__exit__=ex

@pytest.mark.seconds_max(300)
async def test_measure(site: Site, alice, bob, carol) -> None:
    global LOG
    rooms=[await alice.create(bob, carol, name=f"r{i}") for i in range(100)]
    async def measured(what, call):
        global LOG
        for i in range(2):
            LOG=[]
            t=time.perf_counter()
            with measure_database() as usage:
                r=await call()
            t=time.perf_counter()-t
        print("\n==",what,usage, round(t*1000,1),"ms", len(LOG))
        if 1: print(collections.Counter(n for n,_ in LOG)); print(sorted(LOG,key=lambda x:-x[1])[:6])
        LOG=None
        return r
    await measured("initial", lambda: bob.peek(since=None))
    lz=lazy_filter()
    await measured("initial lazy", lambda: bob.peek(since=None, filter=lz))
    await bob.sync()
    await measured("nothing", lambda: bob.peek())
    await alice.send(rooms[3],"hi")
    await measured("one message", lambda: bob.peek())
    await measured("one message, lazy", lambda: bob.peek(filter=lz))
    await bob.sync()
    await alice.rename(rooms[3],"hi")
    await measured("one state", lambda: bob.peek())
    await bob.sync()
    for i in range(20): await alice.send(rooms[4],"hi")
    await measured("gap", lambda: bob.peek())
    await bob.sync()
    await alice.type(rooms[4])
    await measured("typing", lambda: bob.peek())
