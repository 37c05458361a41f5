"""Explains every appeal that waits for it, with bundles from the release repository."""

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from converters.appeals.explaining import Explanation, explain
from converters.appeals.server import Appeals, Contested
from converters.fleet_http import Refused
from converters.retraining import material
from edge_core.errors import InvalidBundle, InvalidInput, InvalidMessage, quoted


class Shelf(msgspec.Struct, frozen=True, kw_only=True):
    """Where bundles come from, and where they are put."""

    repository: Path
    keys: Path
    work: Path


def answer_waiting(shelf: Shelf, source: Appeals, say: Callable[[str], None]) -> int:
    """Explain what waits and return how many appeals were explained.

    What cannot be explained gets an explanation that says why: a person looks at the appeal, and
    nobody tries it again and again.

    Raises:
        Unavailable, InvalidConfiguration: of the server, or the repository.
    """
    explained = 0
    for contested in source.waiting():
        try:
            found = _explained(shelf, source, contested)
            source.keep(contested.appeal, found)
        except Refused as error:  # decided or forgotten meanwhile
            say(f"appeal {contested.appeal}: {error}")
            continue
        say(f"appeal {contested.appeal}: {found.note}")
        explained += 1
    return explained


def _explained(shelf: Shelf, source: Appeals, contested: Contested) -> Explanation:
    try:
        sample = source.sample(contested.appeal)
        return explain(_bundle(shelf, contested), sample, contested.claimed)
    except (InvalidBundle, InvalidInput, InvalidMessage) as error:
        return Explanation(method="none", contributions={}, note=quoted(error))


def _bundle(shelf: Shelf, contested: Contested) -> Path:
    """The release's bundle; fetched once."""
    release, digest = contested.about.release, contested.about.prediction.digest
    assert release is not None, "only those wait whose release is known"
    place = shelf.work / "bundles" / digest
    if not place.exists():
        coming = shelf.work / "bundles" / f".{digest}"
        shutil.rmtree(coming, ignore_errors=True)  # what a killed worker left
        coming.mkdir(parents=True)
        material.fetch(shelf.repository, shelf.keys, release, digest, coming)
        coming.rename(place)
    return place
