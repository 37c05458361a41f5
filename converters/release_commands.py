"""``serinus-convert keygen``, ``init-repository``, ``publish``, ``revoke``, ``renew``: releases."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from converters.ceremony.options import NoPassphrase, PassphraseFile
from converters.console import console

if TYPE_CHECKING:
    from converters.list_writer import ReleaseKey

Bundle = Annotated[Path, typer.Argument(help="Bundle folder or archive.")]
Repository = Annotated[Path, typer.Option(help="Folder of the release repository.")]
Keys = Annotated[
    Path, typer.Option(help="Folder of the release team's keys, with 1.root.json in it.")
]
ReleasesKey = Annotated[
    str, typer.Option("--key", help="Releases key, where it is not releases.pem in --keys.")
]


def keygen(
    folder: Annotated[Path, typer.Argument(help="Folder for the key pair.")],
    key: Annotated[
        str | None,
        typer.Option(help="Take this key on a token (pkcs11:...): write its public half only."),
    ] = None,
    passphrase_file: PassphraseFile = None,
    no_passphrase: NoPassphrase = False,
) -> None:
    """Make the key pair that signs who built a bundle."""
    from converters import signing
    from converters.keys import access

    if key is None:
        signing.check_free(folder)
        what = str(folder / signing.PRIVATE_KEY)
        secret = access.for_new_key(passphrase_file, without=no_passphrase, what=what)
        private = str(signing.generate_key(folder, secret))
    else:
        private = key
        signing.write_public_key(folder, signing.open_key(key, access.of_person(passphrase_file)))
    console.print(
        f"{private}: keep it in CI\n{folder / signing.PUBLIC_KEY}: pin it on devices", markup=False
    )


def init_repository(
    repository: Repository,
    keys: Keys,
    passphrase_file: PassphraseFile = None,
    no_passphrase: NoPassphrase = False,
    root: Annotated[
        Path | None,
        typer.Option(
            help="Signed first root of a ceremony; --keys has targets.pem, releases.pem and "
            "releases.pub.json then."
        ),
    ] = None,
    key: ReleasesKey = "",
) -> None:
    """Make an empty release repository and all its keys on this machine: for a first look.

    Whoever has the keys folder then has every root key, so two of three is a form only. Where
    devices matter, three people make the root (docs/key-ceremony.md), and --root begins with it.
    """
    from converters import publishing
    from converters.ceremony import beginning
    from converters.keys import access

    now = datetime.now(UTC)
    if root is not None:
        beginning.begin(repository, keys, root, now, _releases_key(key, passphrase_file))
        console.print(f"repository in {repository}, by the root of {root}", markup=False)
        return
    publishing.check_free(repository, keys)
    what = f"the keys in {keys}"
    secret = access.for_new_key(passphrase_file, without=no_passphrase, what=what)
    publishing.init_repository(repository, keys, now, secret)
    console.print(
        f"repository in {repository}, keys in {keys}: keep root-1..3, targets and releases off "
        f"the server; give the server {keys / publishing.ONLINE}\n"
        "This is for a first look: one folder has every root key. docs/key-ceremony.md says how "
        "three people make a repository that no single theft can take.",
        markup=False,
    )


def publish(
    bundle: Bundle,
    repository: Repository,
    keys: Keys,
    key: ReleasesKey = "",
    passphrase_file: PassphraseFile = None,
) -> None:
    """Approve a bundle: list it in the release repository."""
    from converters import publishing
    from converters.opening import opened

    with opened(bundle) as folder:
        ref = publishing.publish(
            folder, repository, keys, datetime.now(UTC), _releases_key(key, passphrase_file)
        )
    console.print(f"published {ref.name}, manifest {ref.digest}", markup=False)


def revoke(
    release: Annotated[str, typer.Argument(help="MODEL@VERSION")],
    repository: Repository,
    keys: Keys,
    key: ReleasesKey = "",
    passphrase_file: PassphraseFile = None,
) -> None:
    """Take a release off the list: no device installs it or rolls back to it any more."""
    from converters import publishing

    opened_key = _releases_key(key, passphrase_file)
    publishing.revoke(release, repository, keys, datetime.now(UTC), opened_key)
    console.print(f"revoked {release}", markup=False)


def renew(
    repository: Repository,
    keys: Keys,
    key: ReleasesKey = "",
    within: Annotated[
        str | None,
        typer.Option(help="Only where the list ends so soon, such as 45d: for a timer."),
    ] = None,
    take_over: Annotated[
        int | None,
        typer.Option(
            min=1, help="After the key was replaced: version of the list to go on from, checked."
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Sign the list of releases again, before it ends or after its key was replaced."""
    from converters import renewal
    from converters.ceremony import options

    done = renewal.renew(
        repository,
        keys,
        options.now(),
        _releases_key(key, passphrase_file),
        within=options.span(within, "--within") if within else None,
        take_over=take_over,
    )
    said = "signed again" if done.written else "not signed again, it lasts"
    console.print(
        f"list {done.version} of {len(done.releases)} releases, {said}: ends "
        f"{done.expires:%Y-%m-%d}",
        markup=False,
    )
    if take_over is not None:
        for name, digest in done.releases.items():
            console.print(f"  {name} {digest}", markup=False)


def _releases_key(place: str, passphrase_file: Path | None) -> "ReleaseKey":
    from converters.keys import access
    from converters.list_writer import ReleaseKey

    return ReleaseKey(place=place, access=access.of_person(passphrase_file))
