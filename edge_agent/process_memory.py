"""How much memory this process takes, as the kernel counts it."""

from pathlib import Path

ROLLUP = Path("/proc/self/smaps_rollup")
STATUS = Path("/proc/self/status")


def held_bytes() -> int | None:
    """Proportional set size, or resident where the kernel gives no other; none where neither."""
    return _kilobytes(ROLLUP, b"Pss:") or _kilobytes(STATUS, b"VmRSS:")


def _kilobytes(source: Path, name: bytes) -> int | None:
    """The line ``name 123 kB`` of a file below /proc, in bytes."""
    try:
        lines = source.read_bytes().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return None
