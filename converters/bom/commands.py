"""``serinus-convert sbom``. Arguments only."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def sbom(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder or archive.")],
    key: Annotated[
        Path | None,
        typer.Option(help="Public statement key: refuse a bundle that it did not sign."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write, instead of printing; must not exist.")
    ] = None,
) -> None:
    """Tell what a bundle is made of: CycloneDX 1.6 with a model card."""
    from converters import checking
    from converters.bom import bundle as bundle_bom
    from converters.bom import document
    from converters.opening import opened
    from edge_core import durable
    from edge_core.bundle import folder as folders
    from edge_core.errors import InvalidConfiguration

    if out is not None and out.exists():
        raise InvalidConfiguration(f"{out} exists already: name another file with --out")
    with opened(bundle) as folder:
        manifest = checking.trusted(folder, key) if key else folders.read(folder)
        made = bundle_bom.of_bundle(manifest, folders.ref(folder))
    data = document.as_bytes(made)
    if out is None:
        sys.stdout.write(data.decode())
    else:
        durable.write_bytes(out, data)
