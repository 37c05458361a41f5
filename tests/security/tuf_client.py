#!/usr/bin/env python3
"""The agent's TUF client as the public ``tuf-conformance`` suite drives it (its CLIENT-CLI.md)."""

import argparse
import shutil
import sys
import urllib.parse
from pathlib import Path

from tuf.api.exceptions import DownloadError, RepositoryError

from edge_agent.download import Pace
from edge_agent.timed_http import TimedHttp
from edge_agent.tuf_client import TufClient

PACE = Pace()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url", default="")
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-dir", type=Path)
    parser.add_argument("--target-base-url", default="")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("trusted_root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    return parser


def main() -> int:
    """Run one command of the protocol; 1 where any part of it failed."""
    options = _parser().parse_args()
    if options.command == "init":
        shutil.copyfile(options.trusted_root, options.metadata_dir / "root.json")
        return 0
    client = TufClient(
        TimedHttp(stall_seconds=PACE.stall_seconds),
        PACE,
        metadata=options.metadata_dir,
        metadata_url=options.metadata_url,
        targets_url=options.target_base_url,
        trusted_root=None,
    )
    try:
        client.refresh()
        for name in options.target_name if options.command == "download" else ():
            _download(client, name, options.target_dir)
    except (RepositoryError, DownloadError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _download(client: TufClient, name: str, folder: Path) -> None:
    info = client.info(name)
    if info is None:
        raise RepositoryError(f"{name} is not listed")
    place = folder / urllib.parse.quote(name, "")
    if place.exists():
        try:
            info.verify_length_and_hashes(place.read_bytes())
        except RepositoryError:
            place.unlink()
        else:
            return  # it is here already
    client.fetch(info, place)


if __name__ == "__main__":
    sys.exit(main())
