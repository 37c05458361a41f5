"""Opens a bundle that is given as a folder or as an archive."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edge_core.bundle import archive
from edge_core.errors import InvalidBundle


@contextlib.contextmanager
def opened(bundle: Path) -> Iterator[Path]:
    """Folder of a bundle; an archive is unpacked for as long as the context lasts.

    Raises:
        InvalidBundle: there is nothing at the path, or the archive is refused.
    """
    if bundle.is_dir():
        yield bundle
    elif bundle.is_file():
        with tempfile.TemporaryDirectory(prefix="serinus-") as temporary:
            folder = Path(temporary) / "bundle"
            archive.unpack(bundle, folder)
            yield folder
    else:
        raise InvalidBundle(f"no bundle at {bundle}: name a bundle's folder or archive")


@contextlib.contextmanager
def opened_if(bundle: Path | None) -> Iterator[Path | None]:
    """As :func:`opened`, where a bundle is named at all."""
    if bundle is None:
        yield None
        return
    with opened(bundle) as folder:
        yield folder
