"""Where targets keep what they install beside Serinus, and how it gets there in one piece."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

STAMP = ".installed"


def folder(kind: str) -> Path:
    """``$SERINUS_TARGETS``, else below ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if named := os.environ.get("SERINUS_TARGETS"):
        return Path(named) / kind
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "serinus" / "targets" / kind


def installed(kind: str, wanted: str) -> bool:
    """Whether the installation is whole and holds what is wanted."""
    try:
        return (folder(kind) / STAMP).read_text() == wanted
    except OSError:
        return False


@contextlib.contextmanager
def installing(kind: str, wanted: str) -> Iterator[Path | None]:
    """A fresh folder to install into; none where another process has done it meanwhile.

    Interrupted installations leave no stamp, so the next one starts afresh; of two at once one
    waits.
    """
    place = folder(kind)
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_name(f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if installed(kind, wanted):
            yield None
            return
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        yield place
        (place / STAMP).write_text(wanted)
