"""Every case, in the order in which they run."""

from tests.faults import disk, kills

CASES = [*kills.CASES, *disk.CASES]
