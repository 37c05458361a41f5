"""Every case, in the order in which they run."""

from tests.faults import kills

CASES = [*kills.CASES]
