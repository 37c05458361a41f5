"""Every case, in the order in which they run."""

from tests.faults import clocks, damage, disk, kills, limits, orders, power_loss, queues, servers

CASES = [
    *kills.CASES,
    *disk.CASES,
    *power_loss.CASES,
    *clocks.CASES,
    *servers.CASES,
    *damage.CASES,
    *orders.CASES,
    *limits.CASES,
    *queues.CASES,
]
