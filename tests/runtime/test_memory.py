"""What a worker holds for nothing."""

import subprocess
import sys

PROGRAM = """
import pathlib, sys
from homeserver.runtime.memory import give_memory_back
def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1])
if "set" in sys.argv:
    give_memory_back()
before = resident()
for _ in range(2):
    # Something small behind the large one, so that the heap cannot simply shrink.
    large, small = bytearray(24 * 2**20), [bytearray(100_000) for _ in range(20)]
    del large
print((resident() - before) * 4096)
"""


def test_large_blocks_are_given_back() -> None:
    command = [sys.executable, "-c", PROGRAM, "set"]
    held = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert held < 10 * 2**20
