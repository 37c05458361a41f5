import subprocess
import sys

COUNT_FAULTS = """
import resource
import sys
import numpy as np
from edge_agent.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()

def batch():
    arrays = [np.ones(80_000) for _ in range(6)]
    return sum(array[0] for array in arrays)

for _ in range(20):
    batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS, mode],
        capture_output=True,
        text=True,
        check=True,
        env={"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"},
    )
    return int(done.stdout)


def test_memory_of_one_batch_serves_the_next() -> None:
    assert faults("keep") < faults("give back") / 50
