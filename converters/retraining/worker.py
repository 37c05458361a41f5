"""Carries out one request: new data, the same recipe, the gates, and a release or a refusal.

Everything of a request lies in a folder of its own below the work folder. A worker that is killed
leaves nothing published; its request is given out again when its lease has run out.
"""

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from converters import building, publishing
from converters.building import BuildRequest
from converters.list_writer import IN_KEYS, ReleaseKey
from converters.pipeline import Report
from converters.refusal import RefusedByGate
from converters.retraining import material
from converters.retraining.server import Claimed, LeaseLost, RequestSource
from converters.signing import StatementKey
from edge_core.bundle import folder as folders
from edge_core.bundle.manifest import Manifest
from edge_core.errors import SerinusError, Unavailable

RENEWALS_PER_LEASE = 4
MAX_LINE = 900
GATES = "gates.json"
"""What a build leaves in its reports folder."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a worker finds and leaves things."""

    recipes: Path
    """Folder of recipe folders."""
    repository: Path
    keys: Path
    """As ``serinus-convert publish`` takes them."""
    work: Path
    statement_key: StatementKey
    releases_key: ReleaseKey = IN_KEYS
    data: Path | None = None
    cache: Path | None = None
    fixed: Mapping[str, str] = {}
    """Model -> snapshot whose test rows judge; that of the oldest listed release by default."""
    targets: tuple[str, ...] = ()
    """Instead of the recipe's."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a request."""

    state: str
    """``published``, ``refused``, ``unchanged`` or ``failed``."""
    text: str
    release: str | None = None
    digest: str | None = None
    gates: list[dict[str, Any]] = []


def carry_out(place: Place, source: RequestSource, claimed: Claimed, report: Report) -> Outcome:
    """Build what a request asks for, publish it or not, and tell the server.

    Raises:
        LeaseLost: somebody else has the request now; nothing was published.
    """
    with _held(source, claimed) as still_held:
        outcome = _outcome(place, claimed, report, still_held)
    source.finish(
        claimed,
        outcome.state,
        outcome.text[:MAX_LINE],
        release=outcome.release,
        digest=outcome.digest,
        gates=outcome.gates,
    )
    return outcome


def _outcome(
    place: Place, claimed: Claimed, report: Report, still_held: Callable[[], None]
) -> Outcome:
    folder = place.work / f"request-{claimed.request}"
    shutil.rmtree(folder, ignore_errors=True)  # what an earlier, killed attempt left
    folder.mkdir(parents=True)
    try:
        return _trained(place, claimed, folder, report, still_held)
    except RefusedByGate as error:
        failed = _failed_gates(folder)
        return Outcome(state="refused", text=str(error), gates=failed)
    except (LeaseLost, Unavailable):
        raise
    except (SerinusError, OSError) as error:
        return Outcome(state="failed", text=str(error))


def _trained(
    place: Place, claimed: Claimed, folder: Path, report: Report, still_held: Callable[[], None]
) -> Outcome:
    if claimed.incumbent is None or claimed.incumbent_digest is None:
        text = f"nothing of {claimed.model} is in production: publish and roll out a first release"
        return Outcome(state="failed", text=text)
    source = material.recipes(place.recipes)[claimed.model]
    parent = folder / "parent"
    material.fetch(
        place.repository, place.keys, claimed.incumbent, claimed.incumbent_digest, parent
    )
    before = folders.read(parent)
    version = material.next_version(source, place.repository, claimed.incumbent)
    material.prepare_recipe(source, folder / "recipe", before, version)
    kept = place.fixed.get(claimed.model) or material.kept_rows(
        place.repository, place.keys, claimed.incumbent
    )
    out = folder / "bundle"
    made = building.build(
        BuildRequest(
            recipe=folder / "recipe",
            out=out,
            release=version,
            parent=parent,
            key=place.statement_key,
            reports=folder,
            data=place.data,
            cache=place.cache,
            fixed=kept,
            targets=place.targets,
        ),
        report,
    )
    if _same_data(made, before):
        text = f"{claimed.incumbent} was trained on these data already: nothing new came"
        return Outcome(state="unchanged", text=text)
    still_held()
    ref = publishing.publish(
        out, place.repository, place.keys, datetime.now(UTC), place.releases_key
    )
    return Outcome(
        state="published",
        text=f"{ref.name} passed {len(made.gates)} gates: {_figures(made, before)}",
        release=ref.name,
        digest=ref.digest,
    )


def _same_data(made: Manifest, before: Manifest) -> bool:
    return (
        made.snapshot is not None
        and before.snapshot is not None
        and made.snapshot.id == before.snapshot.id
    )


def _figures(made: Manifest, before: Manifest) -> str:
    name = made.main_metric
    return f"{name} {made.metrics.get(name, 0):.4f}, before {before.metrics.get(name, 0):.4f}"


def _failed_gates(folder: Path) -> list[dict[str, Any]]:
    """Gates that neither passed nor were waived, as the build reported them."""
    try:
        report = msgspec.json.decode((folder / GATES).read_bytes())
    except (OSError, msgspec.MsgspecError):
        return []
    gates: list[dict[str, Any]] = report["gates"]
    return [gate for gate in gates if gate["outcome"] != "passed" and not gate["waived"]]


@contextlib.contextmanager
def _held(source: RequestSource, claimed: Claimed) -> Iterator[Callable[[], None]]:
    """Renew the lease beside the work; what is given raises where it was lost."""
    lost = threading.Event()
    done = threading.Event()

    def renew() -> None:
        while not done.wait(claimed.lease_seconds / RENEWALS_PER_LEASE):
            try:
                source.renew(claimed, "building")
            except LeaseLost:
                lost.set()
                return
            except SerinusError:
                continue  # the server is away for a moment; the lease may outlast it

    def still_held() -> None:
        if lost.is_set():
            raise LeaseLost(f"request {claimed.request} was given to somebody else")
        source.renew(claimed, "publishing")

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield still_held
    finally:
        done.set()
        thread.join(5)
