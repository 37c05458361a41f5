"""Follows a bundle from its data to its verdicts."""

from datetime import datetime
from pathlib import Path

from converters.fleet_http import FleetHttp
from converters.tracing import approved, rolled_out, signed
from converters.tracing.link import Chain
from edge_core.bundle import folder as folders


def trace(
    bundle: Path,
    *,
    key: Path | None,
    repository: Path | None,
    root: Path | None,
    server: FleetHttp | None,
    now: datetime,
) -> Chain:
    """The chain behind a bundle's folder, broken or not.

    Args:
        bundle: its folder.
        key: public statement key to trust; without it no link is verified.
        repository: folder of a release repository.
        root: the root metadata to trust it by.
        server: fleet server to ask for rollouts.
        now: by which the release list has ended or not.

    Raises:
        InvalidBundle: there is no manifest to start from.
        InvalidConfiguration: an option names nothing that can be used.
    """
    manifest, ref = folders.read(bundle), folders.ref(bundle)
    return Chain(
        release=ref.name,
        digest=ref.digest,
        links=[
            *signed.checked(bundle, manifest, ref, key),
            approved.link(ref, repository, root, now),
            rolled_out.link(ref, server),
        ],
    )
