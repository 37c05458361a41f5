"""What a request is built from: the incumbent's bundle, the recipe's next version, kept rows."""

import re
import shutil
import tomllib
from pathlib import Path

from converters import recipe, release_list, trusted_list
from converters.trusted_list import PINNED_ROOT
from edge_core import durable
from edge_core.bundle import folder as folders
from edge_core.bundle import manifest as manifests
from edge_core.bundle.manifest import MANIFEST, Manifest
from edge_core.errors import InvalidBundle, InvalidConfiguration
from edge_core.release import VERSION_PATTERN, ReleaseRef


def recipes(folder: Path) -> dict[str, Path]:
    """Model -> folder of its recipe, of all recipes below a folder.

    Raises:
        InvalidConfiguration: there is none, or two are of the same model.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.glob(f"*/{recipe.RECIPE_FILE}")):
        try:
            model = tomllib.loads(path.read_text(encoding="utf-8")).get("model")
        except (OSError, ValueError) as error:
            raise InvalidConfiguration(f"cannot read {path}: {error}") from error
        if not isinstance(model, str):
            raise InvalidConfiguration(f"{path} names no model")
        if model in found:
            raise InvalidConfiguration(f"{found[model]} and {path.parent} are both of {model}")
        found[model] = path.parent
    if not found:
        raise InvalidConfiguration(f"no recipe below {folder}: name the folder that holds them")
    return found


def fetch(repository: Path, keys: Path, name: str, digest: str, out: Path) -> ReleaseRef:
    """Put a listed release's bundle together from the repository's files.

    Raises:
        UntrustedBundle: the list is not what the pinned root allows.
        InvalidBundle: the release is not listed with this digest, or a file is not as listed.
    """
    listed = trusted_list.releases(repository, keys / PINNED_ROOT)
    if release_list.listed_releases(listed).get(name) != digest:
        raise InvalidBundle(f"{name} with manifest {digest[:12]} is not listed in {repository}")
    model, version = name.split("@", 1)
    place = release_list.place(model, version)
    for path, target in sorted(listed.targets.items()):
        if not path.startswith(f"{place}/"):
            continue
        data = trusted_list.read(repository / "targets" / target.get_prefixed_paths()[0])
        target.verify_length_and_hashes(data)
        durable.write_bytes(_within(out, path.removeprefix(f"{place}/")), data)
    manifest = folders.read(out)
    folders.check(out, manifest)
    return folders.ref(out)


def _within(out: Path, path: str) -> Path:
    place = out / path
    if not place.resolve().is_relative_to(out.resolve()):
        raise InvalidBundle(f"{path} leads out of the bundle")
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def kept_rows(repository: Path, keys: Path, incumbent: str) -> str | None:
    """Id of the data snapshot of the oldest listed release that answers as the incumbent does.

    It has the same MAJOR version, so its classes mean the same; as long as it is listed, the rows
    that every later release has to hold its own on stay the same. None where it names none.
    """
    listed = trusted_list.releases(repository, keys / PINNED_ROOT)
    model, version = incumbent.split("@", 1)
    major = version.split(".")[0]
    names = [
        name
        for name in release_list.listed_releases(listed)
        if name.startswith(f"{model}@{major}.")
    ]
    for name in sorted(names, key=_number):
        target = listed.targets[f"{release_list.place(*name.split('@', 1))}/{MANIFEST}"]
        data = trusted_list.read(repository / "targets" / target.get_prefixed_paths()[0])
        target.verify_length_and_hashes(data)
        manifest = manifests.parse(data)
        if manifest.snapshot is not None:
            return manifest.snapshot.id
    return None


def next_version(recipe_folder: Path, repository: Path, incumbent: str) -> str:
    """The next MINOR version that nobody has used: of what was ever published, or is in the recipe.

    Classes stay as they are, so MAJOR does, too.
    """
    model, version = incumbent.split("@", 1)
    used = {path.stem for path in (recipe_folder / recipe.RELEASES_FOLDER).glob("*.toml")}
    used |= {path.name for path in (repository / "targets" / model).glob("*")}
    major = version.split(".")[0]
    minors = [
        int(name.split(".")[1])
        for name in used | {version}
        if re.match(VERSION_PATTERN, name) and name.split(".")[0] == major
    ]
    return f"{major}.{max(minors) + 1}.0"


def prepare_recipe(source: Path, out: Path, incumbent: Manifest, version: str) -> None:
    """Copy a recipe and add a release: the incumbent's settings under the next version.

    Raises:
        InvalidConfiguration: the recipe does not have the incumbent's release.
    """
    overlay = source / recipe.RELEASES_FOLDER / f"{incumbent.version}.toml"
    if not overlay.is_file():
        raise InvalidConfiguration(
            f"{source} has no release {incumbent.version}, which is in production: its settings "
            "are what a new release is trained with; add its file"
        )
    shutil.copytree(source, out, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(overlay, out / recipe.RELEASES_FOLDER / f"{version}.toml")


def _number(name: str) -> list[int]:
    return [int(part) for part in name.split("@", 1)[1].split(".")]
