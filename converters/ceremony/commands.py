"""``serinus-convert root``: who may replace whom. Arguments only."""

from pathlib import Path
from typing import Annotated

import typer

from converters.ceremony import options
from converters.ceremony.options import (
    Copy,
    Delegation,
    ExpiresIn,
    Fingerprint,
    KeyPlace,
    NoPassphrase,
    Out,
    PassphraseFile,
    Proposal,
    Proposals,
    Repository,
    Trusted,
    Within,
)

app = typer.Typer(
    name="root",
    no_args_is_help=True,
    help="Who may do what in the release repository: several people with a key each decide it "
    "(docs/key-ceremony.md).",
)


@app.command()
def keygen(
    name: Annotated[str, typer.Argument(help="Holder: ada, targets-2027, releases-2027, ...")],
    folder: Annotated[Path, typer.Option(help="Where the key shall stay.")],
    key: Annotated[
        str | None,
        typer.Option(help="Take this key, pkcs11:... on a token or a file, instead of making one."),
    ] = None,
    passphrase_file: PassphraseFile = None,
    no_passphrase: NoPassphrase = False,
) -> None:
    """Make an encrypted key, and its public part to hand over; for any role."""
    from converters.ceremony import public_key, showing
    from converters.keys import access, key_file, opening

    private = folder / f"{public_key.check_name(name)}.pem"
    public = folder / f"{name}{public_key.SUFFIX}"
    for path in (public,) if key else (public, private):
        if path.exists():
            raise key_file.already_there(path)
    if key is None:
        secret = access.for_new_key(passphrase_file, without=no_passphrase, what=str(private))
        made = key_file.new_tuf_key()
        key_file.write_signer(private, made, secret)
        half, said = made.public_key, f"{private}: keep it here, and a copy in a safe"
    else:
        opened = opening.signer(key, access.of_person(passphrase_file))
        half, said = public_key.canonical(opened.public_key), f"{key}: the key stays there"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    public_key.write(public, public_key.held_by(half, name))
    fingerprint = public_key.fingerprint(half.keyid)
    showing.lines([said, f"{public}: hand it over, and read out: {fingerprint}"])


@app.command()
def propose(
    out: Out,
    repository: Copy = None,
    trusted_root: Trusted = None,
    add: Annotated[
        list[str] | None, typer.Option(help="ROLE=NAME.pub.json: gets this key, too.")
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(help="ROLE=HOLDER or ROLE=FINGERPRINT: loses its key.")
    ] = None,
    replace: Annotated[
        list[str] | None,
        typer.Option(help="ROLE=NAME.pub.json: these are all keys that the role has then."),
    ] = None,
    threshold: Annotated[
        list[str] | None, typer.Option(help="ROLE=N: so many of its keys have to sign.")
    ] = None,
    expires_in: ExpiresIn = "365d",
) -> None:
    """Write the first root or the next one, unsigned, and say what changes. Needs no key."""
    from tuf.api.metadata import Metadata

    from converters.ceremony import enacting, ground, proposal, root_change, showing, wording

    roles = root_change.ROLES
    options.refuse_existing(out)
    standing = ground.of_repository(repository, trusted_root)
    now = options.now()
    change = root_change.Change(
        expires=now + options.span(expires_in, "--expires-in"),
        add=options.public_keys(options.pairs(add, "--add", roles)),
        remove=options.pairs(remove, "--remove", roles),
        replace=options.public_keys(options.pairs(replace, "--replace", roles)),
        thresholds={
            role: options.count(number, "--threshold")
            for role, number in options.pairs(threshold, "--threshold", roles)
        },
    )
    made = Metadata(root_change.following(standing.root, change, now))
    enacting.check_root(standing, made, now)
    proposal.write(out, made)
    showing.proposed(wording.of_root(standing.root, made.signed), made)


@app.command()
def sign(
    proposed: Proposal,
    key: KeyPlace,
    repository: Copy = None,
    trusted_root: Trusted = None,
    fingerprint: Fingerprint = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Read a proposal in words, compare its fingerprint, and sign it with your key."""
    from tuf.api.metadata import Root

    from converters.ceremony import enacting, ground, proposal, showing, wording

    metadata = proposal.read(proposed, Root)
    standing = ground.of_repository(repository, trusted_root)
    before = standing.root
    enacting.check_root(standing, metadata, options.now())
    showing.proposed(wording.of_root(before, metadata.signed), metadata)
    showing.agree(proposal.fingerprint(metadata), fingerprint)
    voters = enacting.root_voters(before, metadata.signed)
    metadata = showing.signed(proposed, metadata, voters, key, passphrase_file)
    showing.standing(enacting.root_voices(before, metadata))


@app.command()
def status(
    proposed: Proposals,
    repository: Copy = None,
    trusted_root: Trusted = None,
    within: Within = "0d",
) -> None:
    """Say who has signed, who is missing by the old and the new root, and what ends when."""
    from tuf.api.metadata import Root

    from converters.ceremony import (
        enacting,
        ground,
        proposal,
        repository_commands,
        showing,
        wording,
    )

    metadata = proposal.merged(proposed, Root)
    standing = ground.of_repository(repository, trusted_root)
    before = standing.root
    enacting.check_root(standing, metadata, options.now())
    showing.proposed(wording.of_root(before, metadata.signed), metadata)
    showing.standing(enacting.root_voices(before, metadata))
    if repository is not None and before is not None:
        repository_commands.show(repository, trusted_root, options.span(within, "--within"))


@app.command()
def publish(
    proposed: Proposals,
    repository: Repository,
    trusted_root: Trusted = None,
    delegation: Delegation = None,
) -> None:
    """Put a root that enough have signed into the repository; devices follow it from there."""
    from tuf.api.metadata import Root, Targets

    from converters.ceremony import enacting, ground, proposal, showing

    metadata = proposal.merged(proposed, Root)
    together = proposal.merged(delegation, Targets) if delegation else None
    fresh = enacting.publish_root(repository, trusted_root, metadata, options.now(), together)
    said = f"root version {metadata.signed.version} is in {repository}"
    showing.lines([said if fresh else f"{said}: it was already"])
    if ground.of_repository(repository, trusted_root).orphaned:
        showing.lines(
            ["no delegation is signed by this root's targets key: make one now with "
             "serinus-convert delegation propose; until then no device takes a new list"]
        )  # fmt: skip
