"""``python -m converters.bom FOLDER``: one ``EXTRA.cdx.json`` for each extra."""

import sys
from pathlib import Path

from converters.bom import document, product
from converters.bom.installed import EXTRAS
from edge_core import durable
from edge_core.errors import SerinusError


def main(arguments: list[str]) -> int:
    """Write the files; every refusal is one line on standard error."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m converters.bom FOLDER\n")
        return 1
    folder = Path(arguments[0])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for extra in EXTRAS:
            made = product.of_extra(extra)
            path = folder / f"{extra}.cdx.json"
            durable.write_bytes(path, document.as_bytes(made))
            sys.stdout.write(f"{path}: {len(made['components'])} components\n")
    except SerinusError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"{error.filename or folder}: {error.strerror}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
