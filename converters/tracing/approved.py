"""Whether the release team lists the bundle."""

from datetime import datetime
from pathlib import Path

from converters import release_list, trusted_list
from converters.tracing.link import Link, facts, short
from edge_core.errors import InvalidConfiguration, UntrustedBundle
from edge_core.release import ReleaseRef

APPROVAL = "approval"


def link(ref: ReleaseRef, repository: Path | None, root: Path | None, now: datetime) -> Link:
    """What a release repository says of a release, by a root that is trusted already.

    Raises:
        InvalidConfiguration: there is no repository, or no root, where they are said to be.
    """
    if repository is None or root is None:
        missing = "--repository FOLDER --root FILE" if repository is None else "--root FILE"
        return Link(name=APPROVAL, unknown=[f"not asked: give {missing}"])
    if not root.is_file():
        raise InvalidConfiguration(f"there is no root at {root}: name the 1.root.json you trust")
    if not (repository / "metadata").is_dir():
        raise InvalidConfiguration(f"there is no release repository at {repository}")
    try:
        listed = trusted_list.releases(repository, root)
    except UntrustedBundle as error:
        return Link(name=APPROVAL, broken=[str(error)])
    told = facts([("list", listed.version), ("list ends", listed.expires.date())])
    digest = release_list.listed_releases(listed).get(ref.name)
    if digest is None:
        return Link(name=APPROVAL, facts=told, unknown=[f"the list does not name {ref.name}"])
    if digest != ref.digest:
        other = f"{ref.name} is approved with manifest {short(digest)}, not {short(ref.digest)}"
        return Link(name=APPROVAL, facts=told, broken=[other])
    ended = [] if listed.expires > now else [f"the list ended on {listed.expires.date()}"]
    return Link(name=APPROVAL, facts=told, unknown=ended)
