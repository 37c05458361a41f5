"""``serinus-convert delegation``: who may approve releases. Arguments only."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from converters.ceremony import commands, options
from converters.ceremony.options import (
    ExpiresIn,
    Fingerprint,
    KeyPlace,
    Out,
    PassphraseFile,
    Proposal,
    Proposals,
    Repository,
    Trusted,
)

if TYPE_CHECKING:
    from tuf.api.metadata import Root

    from converters.ceremony.ground import Ground

app = typer.Typer(
    name="delegation",
    no_args_is_help=True,
    help="Who may approve and revoke releases: the targets key says it (docs/key-ceremony.md).",
)
app.command()(commands.keygen)
NextRoot = Annotated[
    Path | None,
    typer.Option(help="Root that is proposed and replaces the targets key; published with this."),
]


@app.command()
def propose(
    out: Out,
    repository: Repository,
    trusted_root: Trusted = None,
    next_root: NextRoot = None,
    add: Annotated[
        list[Path] | None, typer.Option(help="NAME.pub.json: may approve releases, too.")
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(help="HOLDER or FINGERPRINT: may approve no more.")
    ] = None,
    replace: Annotated[
        list[Path] | None, typer.Option(help="NAME.pub.json: only these may approve then.")
    ] = None,
    expires_in: ExpiresIn = "365d",
) -> None:
    """Write the next delegation, unsigned, and say what changes. Needs no key."""
    from tuf.api.metadata import Metadata

    from converters.ceremony import delegation_change, proposal, public_key, showing, wording

    options.refuse_existing(out)
    standing, root = _stand(repository, trusted_root, next_root)
    now = options.now()
    change = delegation_change.Change(
        expires=now + options.span(expires_in, "--expires-in"),
        add=[public_key.read(path) for path in add or ()],
        remove=list(remove or ()),
        replace=[public_key.read(path) for path in replace or ()],
    )
    version = standing.targets_version + 1
    proposed = delegation_change.following(root, standing.targets, version, change, now)
    made = Metadata(proposed)
    proposal.write(out, made)
    showing.proposed(wording.of_delegation(standing.targets, proposed), made)


@app.command()
def sign(
    proposed: Proposal,
    key: KeyPlace,
    repository: Repository,
    trusted_root: Trusted = None,
    next_root: NextRoot = None,
    fingerprint: Fingerprint = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Read a proposal in words, compare its fingerprint, and sign it with the targets key."""
    from tuf.api.metadata import Targets

    from converters.ceremony import enacting, proposal, showing, wording

    metadata = proposal.read(proposed, Targets)
    standing, root = _stand(repository, trusted_root, next_root)
    enacting.check_delegation(root, standing.targets_version, metadata, options.now())
    showing.proposed(wording.of_delegation(standing.targets, metadata.signed), metadata)
    showing.agree(proposal.fingerprint(metadata), fingerprint)
    voters = enacting.delegation_voters(root)
    metadata = showing.signed(proposed, metadata, voters, key, passphrase_file)
    showing.standing(enacting.delegation_voices(root, metadata))


@app.command()
def status(
    proposed: Proposals,
    repository: Repository,
    trusted_root: Trusted = None,
    next_root: NextRoot = None,
) -> None:
    """Say what is proposed, who has signed and who is missing."""
    from tuf.api.metadata import Targets

    from converters.ceremony import enacting, proposal, showing, wording

    metadata = proposal.merged(proposed, Targets)
    standing, root = _stand(repository, trusted_root, next_root)
    enacting.check_delegation(root, standing.targets_version, metadata, options.now())
    showing.proposed(wording.of_delegation(standing.targets, metadata.signed), metadata)
    showing.standing(enacting.delegation_voices(root, metadata))


@app.command()
def publish(proposed: Proposals, repository: Repository, trusted_root: Trusted = None) -> None:
    """Put a delegation that enough have signed into the repository."""
    from tuf.api.metadata import Targets

    from converters.ceremony import enacting, proposal, showing

    metadata = proposal.merged(proposed, Targets)
    fresh = enacting.publish_delegation(repository, trusted_root, metadata, options.now())
    said = f"targets version {metadata.signed.version} is in {repository}"
    showing.lines([said if fresh else f"{said}: it was already"])
    if not enacting.list_stands(repository, trusted_root):
        showing.lines(
            ["the list of releases is signed by none of these keys: sign it now with "
             "serinus-convert renew; until then no device takes a release"]
        )  # fmt: skip


def _stand(repository: Path, trusted: Path | None, next_root: Path | None) -> "tuple[Ground, Root]":
    from tuf.api.metadata import Root

    from converters.ceremony import ground, proposal

    standing = ground.of_repository(repository, trusted)
    if next_root is None:
        return standing, standing.need_root()
    return standing, proposal.read(next_root, Root).signed
