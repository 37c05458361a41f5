"""What a proposal stands on: the root and delegation of a repository, or of a copy on a stick."""

import contextlib
from pathlib import Path

import msgspec
from tuf.api.metadata import Metadata, Root, Targets

from converters import trusted_list
from converters.ceremony import proposal
from converters.trusted_list import PINNED_ROOT
from edge_core.errors import InvalidConfiguration, UntrustedBundle

NOWHERE = Path("/nonexistent")


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """Present metadata, verified from a root that somebody trusts; none where none is yet."""

    root: Root | None
    targets: Targets | None = None
    targets_version: int = 0
    """Newest version in the repository, trusted or not."""
    orphaned: bool = False
    """Whether no delegation is signed by this root's targets keys."""

    def need_root(self) -> Root:
        """The root; raise :class:`InvalidConfiguration` where there is none."""
        if self.root is None:
            raise InvalidConfiguration(
                "there is no root yet: begin with serinus-convert root propose, sign and publish"
            )
        return self.root


def of_repository(repository: Path | None, trusted: Path | None) -> Ground:
    """Read a repository's root and delegation.

    ``repository``: a folder with ``metadata`` in it. ``trusted``: a root to start from, such as a
    holder's own copy; the repository's first one where it is none.

    Raises:
        InvalidConfiguration: the folder or the trusted root is missing.
        UntrustedBundle: the chain of roots is broken, or does not begin with the trusted one.
    """
    if repository is None:
        return Ground(root=None)
    if trusted is not None and not trusted.is_file():
        raise InvalidConfiguration(f"there is no root at {trusted} to start from")
    if not (repository / "metadata").is_dir():
        raise InvalidConfiguration(
            f"{repository} has no folder metadata: name the release repository, or a copy of it"
        )
    if trusted is None and not (repository / "metadata" / PINNED_ROOT).exists():
        return Ground(root=None)
    chain = trusted_list.roots(repository, trusted or NOWHERE)
    if trusted is not None:
        _check_same(repository, chain[0], trusted)
    root = chain[-1].signed
    targets = _targets([root], repository)
    earlier = [one.signed for one in reversed(chain[:-1])]
    return Ground(
        root=root,
        targets=targets or _targets(earlier, repository),
        orphaned=targets is None,
        targets_version=max(trusted_list.versions(repository, Targets.type), default=0),
    )


def _check_same(repository: Path, first: Metadata[Root], trusted: Path) -> None:
    """The own copy is not only a beginning: the repository has to have it, too."""
    path = repository / "metadata" / f"{first.signed.version}.root.json"
    if path.exists():
        there = proposal.read(path, Root)
        if proposal.fingerprint(there) != proposal.fingerprint(first):
            raise UntrustedBundle(
                f"{path} is not trusted: it says something else than {trusted}, your own copy"
            )


def _targets(roots: list[Root], repository: Path) -> Targets | None:
    """The newest delegation that the first of these roots with one allows."""
    for root in roots:
        for version in reversed(trusted_list.versions(repository, Targets.type)):
            with contextlib.suppress(UntrustedBundle):
                return trusted_list.targets_of(root, repository, version)
    return None
