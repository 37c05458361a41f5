"""Builds a bundle's release again in a fresh process and compares what came out."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from converters import incumbent, provenance, recipe, recipe_code
from converters.data import snapshot_store
from converters.data.snapshot_store import Store
from converters.refusal import RefusedByGate, StageFailed, WrongUse
from edge_core.bundle import folder as folders
from edge_core.bundle import golden as goldens
from edge_core.bundle import manifest as manifests
from edge_core.bundle.manifest import Manifest

MEASURED = (manifests.CARD, "card/")
"""Files that show measured times, so that they differ from build to build."""
RECIPES = Path("firmware_bundles")


class FileComparison(msgspec.Struct, frozen=True, kw_only=True):
    """One file of both bundles."""

    path: str
    outcome: Literal["identical", "same answers", "different", "missing", "new"]
    detail: str = ""


class Reproduction(msgspec.Struct, frozen=True, kw_only=True):
    """What came of building again."""

    release: str
    files: list[FileComparison]
    data: str
    """Where the rows came from."""
    differences: list[str]
    """What differs in the circumstances: tools, machine, recipe."""

    @property
    def holds(self) -> bool:
        """Whether every file is the same, or answers the same."""
        return all(file.outcome in ("identical", "same answers") for file in self.files)


def reproduce(
    bundle: Path, recipe_folder: Path | None, parent: Path | None, data: Path | None = None
) -> Reproduction:
    """Rebuild without the cache and compare.

    Args:
        bundle: its folder.
        recipe_folder: the recipe's; by default below :data:`RECIPES`.
        parent: the parent's bundle, if it had one.
        data: folder of data snapshots. Where it lacks the one that the manifest names, the
            recipe's own code is asked, and what it offers is not kept.

    Raises:
        WrongUse: the recipe is not found.
        RefusedByGate: the data is not the manifest's, or a gate refused the build.
        StageFailed: the build did not succeed.
        InvalidBundle: the bundle itself is not whole.
    """
    manifest = folders.read(bundle)
    folders.check(bundle, manifest)
    folder = recipe_folder or RECIPES / manifest.provenance.recipe
    if not (folder / recipe.RECIPE_FILE).is_file():
        raise WrongUse(f"the recipe is not at {folder}: name its folder with --recipe")
    with tempfile.TemporaryDirectory(prefix="serinus-") as temporary:
        out = Path(temporary) / "again"
        options, told = _data(manifest, Store(data or snapshot_store.default_folder()), temporary)
        options += ["--cache", f"{temporary}/cache", "--same-data-as", str(bundle)]
        options += ["--parent", str(parent)] if parent else []
        _build(manifest, folder, out, options)
        again = folders.read(out)
        return Reproduction(
            release=f"{manifest.model}@{manifest.version}",
            files=compare_files(bundle, manifest, out, again),
            data=told,
            differences=_circumstances(manifest, again, folder),
        )


def compare_files(
    bundle: Path, manifest: Manifest, other: Path, again: Manifest
) -> list[FileComparison]:
    """Compare by digest, and model files that differ by their answers to the golden rows."""
    mine = {entry.path: entry.sha256 for entry in manifest.files if not _measured(entry.path)}
    theirs = {entry.path: entry.sha256 for entry in again.files if not _measured(entry.path)}
    found = []
    for path in sorted(mine.keys() | theirs.keys()):
        if path not in theirs:
            found.append(FileComparison(path=path, outcome="missing"))
        elif path not in mine:
            found.append(FileComparison(path=path, outcome="new"))
        elif mine[path] == theirs[path]:
            found.append(FileComparison(path=path, outcome="identical"))
        else:
            found.append(_answers(path, bundle, manifest, other, again))
    return found


def _measured(path: str) -> bool:
    return path.startswith(MEASURED)


def _answers(
    path: str, bundle: Path, manifest: Manifest, other: Path, again: Manifest
) -> FileComparison:
    variant = next((v for v in manifest.variants if v.path == path), None)
    if variant is None:
        return FileComparison(path=path, outcome="different")
    raw = goldens.unpack(
        folders.read_limited(bundle / manifests.GOLDEN, goldens.MAX_GOLDEN_BYTES)
    ).raw
    mine = incumbent.answer(bundle, manifest, variant, raw)
    theirs = incumbent.answer(other, again, again.variant(variant.target), raw)
    if mine is None or theirs is None:
        return FileComparison(path=path, outcome="different", detail="nothing here runs the file")
    worst = float(np.abs(mine - theirs).max(initial=0.0))
    same = worst <= variant.tolerance
    return FileComparison(
        path=path,
        outcome="same answers" if same else "different",
        detail=f"golden logits differ by up to {worst:.3g}, tolerance {variant.tolerance:.3g}",
    )


def _data(manifest: Manifest, store: Store, temporary: str) -> tuple[list[str], str]:
    """Options that give a build its data, and what a person is told of it."""
    named = manifest.snapshot
    if named is not None and store.has(named.id):
        chosen = ["--snapshot", named.id, "--data", str(store.folder)]
        return chosen, f"data snapshot {named.id[:16]}, as kept"
    why = "the manifest names no data snapshot" if named is None else f"no {named.id[:16]} was kept"
    return ["--data", f"{temporary}/data"], f"what the recipe's code offers now; {why}"


def _build(manifest: Manifest, folder: Path, out: Path, options: Sequence[str]) -> None:
    """A fresh process: no module, seed or thread setting of this one can help or hurt."""
    waivers = [f"{w.gate}{f':{w.slice}' if w.slice else ''}={w.reason}" for w in manifest.waivers]
    arguments: list[str] = ["--release", manifest.version, "--out", str(out), *options]
    arguments += ["--targets", ",".join(variant.target for variant in manifest.variants)]
    arguments += [word for waiver in waivers for word in ("--waive", waiver)]
    command: Sequence[str] = [sys.executable, "-m", "converters.cli", "build", str(folder)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if not done.returncode:
        return
    lines = done.stderr.strip().splitlines()
    said = lines[-1].removeprefix("serinus-convert: ") if lines else str(done.returncode)
    if done.returncode == RefusedByGate.exit_code:  # by its data, or by measured latency
        raise RefusedByGate(f"building again was refused: {said}")
    raise StageFailed(f"building again failed: {said}")


def _circumstances(manifest: Manifest, again: Manifest, folder: Path) -> list[str]:
    """What differs from the build that made the bundle."""
    found = []
    kept, now_kept = manifest.snapshot, again.snapshot
    if kept is not None and now_kept is not None and kept.id != now_kept.id:
        found.append(
            f"the same rows, but other files: data snapshot {kept.id[:12]} is {now_kept.id[:12]}"
        )
    before = manifest.provenance
    chosen = recipe.load(folder, manifest.version)
    digest = recipe_code.digest(folder, recipe.release_file(chosen))
    if digest != before.recipe_sha256:
        found.append(f"the recipe has changed since: {before.recipe_sha256[:12]} is {digest[:12]}")
    if provenance.machine() != before.machine:
        found.append(f"machine: {before.machine}, now {provenance.machine()}")
    now = provenance.tools()
    for name in sorted(before.tools.keys() | now.keys()):
        if before.tools.get(name) != now.get(name):
            found.append(f"{name}: {before.tools.get(name)}, now {now.get(name)}")
    return found
