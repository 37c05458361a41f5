"""Which run of the machine this is, to tell a power cut from the end of a process."""

from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
MAX_BYTES = 64


def boot_id(source: Path = BOOT_ID) -> str:
    """Another text after each start of the machine; empty where the kernel does not tell."""
    try:
        with source.open("rb") as stream:
            text = stream.read(MAX_BYTES).decode("ascii", "replace").strip()
    except OSError:
        return ""
    return text if text.isprintable() else ""
