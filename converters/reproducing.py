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
from converters.refusal import StageFailed, WrongUse
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
    differences: list[str]
    """What differs in the circumstances: tools, machine, recipe."""

    @property
    def holds(self) -> bool:
        """Whether every file is the same, or answers the same."""
        return all(file.outcome in ("identical", "same answers") for file in self.files)


def reproduce(bundle: Path, recipe_folder: Path | None, parent: Path | None) -> Reproduction:
    """Rebuild without the cache and compare.

    Raises:
        WrongUse: the recipe is not found.
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
        _build(manifest, folder, out, parent, Path(temporary) / "cache")
        again = folders.read(out)
        return Reproduction(
            release=f"{manifest.model}@{manifest.version}",
            files=compare_files(bundle, manifest, out, again),
            differences=_circumstances(manifest, folder),
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


def _build(manifest: Manifest, folder: Path, out: Path, parent: Path | None, cache: Path) -> None:
    """A fresh process: no module, seed or thread setting of this one can help or hurt."""
    waivers = [f"{w.gate}{f':{w.slice}' if w.slice else ''}={w.reason}" for w in manifest.waivers]
    arguments: list[str] = ["--release", manifest.version, "--out", str(out)]
    arguments += ["--cache", str(cache)]
    arguments += ["--targets", ",".join(variant.target for variant in manifest.variants)]
    arguments += [word for waiver in waivers for word in ("--waive", waiver)]
    arguments += ["--parent", str(parent)] if parent else []
    command: Sequence[str] = [sys.executable, "-m", "converters.cli", "build", str(folder)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:  # a gate refuses by measured latency, too
        lines = done.stderr.strip().splitlines()
        raise StageFailed(f"building again failed: {lines[-1] if lines else done.returncode}")


def _circumstances(manifest: Manifest, folder: Path) -> list[str]:
    """What differs from the build that made the bundle."""
    found = []
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
