"""Attacks on what a device fetches: by the network, by the server, by stolen keys."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, TargetFile, Targets

from converters import publishing
from edge_core.release import ReleaseRef
from tests.faults import clocks
from tests.faults.case import Case, Site
from tests.security.attacked import Repository, attacked, refuses

AHEAD = 400 * 86_400.0
"""Seconds by which a clock is wrong; lists last shorter."""
BACK = 2 * 86_400.0
"""Seconds by which a clock is set back, to before the end of a list."""


def _changed(name: str, change: Callable[[bytes], bytes]) -> Callable[[Site], None]:
    def run(site: Site) -> None:
        def attack(repository: Repository) -> ReleaseRef:
            path = repository.target(site.stage.new, name)
            path.write_bytes(change(path.read_bytes()))
            return site.stage.new

        refuses(site, attack, r"altered|announces|more than|ended after|not the approved")

    return run


def _flipped(data: bytes) -> bytes:
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def _endless(site: Site) -> None:
    refuses(
        site, lambda repository: site.stage.new, r"cannot be|altered|more than|announces|trusted",
        plan=lambda number: "endless",
    )  # fmt: skip


def _unlisted(site: Site) -> None:
    refuses(site, lambda repository: _unlisted_of(site), "is not approved")


def _unlisted_of(site: Site) -> ReleaseRef:
    return ReleaseRef(model=site.stage.old.model, version="9.9.9", digest="a" * 64)


def _other_digest(site: Site) -> None:
    new = site.stage.new
    ref = ReleaseRef(model=new.model, version=new.version, digest="b" * 64)
    refuses(site, lambda repository: ref, "is approved with digest")


def _revoked(site: Site) -> None:
    def attack(repository: Repository) -> ReleaseRef:
        version = repository.newest("releases")
        publishing.revoke(site.stage.new.name, repository.folder, repository.keys, _now())
        assert repository.newest("releases") == version + 1
        repository.list_releases(version + 1)
        return site.stage.new

    refuses(site, attack, "is not approved")


def _foreign_list(site: Site) -> None:
    """The server's keys list a list of the attacker's own."""

    def attack(repository: Repository) -> ReleaseRef:
        version = repository.newest("releases") + 1
        ref = ReleaseRef(model=site.stage.old.model, version="6.6.6", digest="c" * 64)
        own = Metadata(Targets(version=version, expires=_now() + timedelta(days=30)))
        name = f"{ref.model}/{ref.version}/manifest.json"
        own.signed.targets[name] = TargetFile.from_data(name, b"{}")
        own.sign(CryptoSigner.generate_ed25519())
        (repository.metadata / f"{version}.releases.json").write_bytes(own.to_bytes())
        repository.list_releases(version)
        return ref

    refuses(site, attack, "foreign key|cannot be trusted")


def _older_list(site: Site) -> None:
    """The server's keys name a list from before the one that the device knows."""

    def attack(repository: Repository) -> ReleaseRef:
        repository.list_releases(repository.newest("releases") - 1)
        return site.stage.new

    refuses(site, attack, "cannot be trusted")


def _mixed(site: Site) -> None:
    """The file of one list under the name of another."""

    def attack(repository: Repository) -> ReleaseRef:
        version = repository.newest("releases")
        older = (repository.metadata / f"{version - 1}.releases.json").read_bytes()
        (repository.metadata / f"{version + 1}.releases.json").write_bytes(older)
        repository.list_releases(version + 1)
        return site.stage.new

    refuses(site, attack, "cannot be trusted|altered")


def _dropped_list(site: Site) -> None:
    """The server's keys name no list at all."""

    def attack(repository: Repository) -> ReleaseRef:
        repository.snap(lambda signed: signed.meta.pop("releases.json"))
        return site.stage.new

    refuses(site, attack, "cannot be trusted")


def _renamed_snapshot(site: Site) -> None:
    """The snapshot from before the one that the device knows, under a newer name."""

    def attack(repository: Repository) -> ReleaseRef:
        newest = repository.newest("snapshot")
        older = (repository.metadata / f"{newest - 1}.snapshot.json").read_bytes()
        (repository.metadata / f"{newest + 1}.snapshot.json").write_bytes(older)
        repository.name_snapshot(newest + 1)
        return site.stage.new

    refuses(site, attack, "cannot be trusted")


def _older_timestamp(site: Site) -> None:
    def attack(repository: Repository) -> ReleaseRef:
        repository.stamp(lambda signed: setattr(signed, "version", 1))
        return site.stage.new

    refuses(site, attack, "cannot be trusted|is not approved")


def _frozen(site: Site) -> None:
    """A timestamp that has ended is shown again and again."""

    def attack(repository: Repository) -> ReleaseRef:
        repository.stamp(lambda signed: setattr(signed, "expires", _now() - timedelta(days=1)))
        return site.stage.newer

    refuses(site, attack, "expired")


def _clock_ahead(site: Site) -> None:
    refuses(
        site, lambda repository: site.stage.new, "expired",
        prepare=lambda: clocks.replace(lambda: AHEAD),
    )  # fmt: skip


def _clock_back(site: Site) -> None:
    """A timestamp that has ended is shown for ever, and the clock is set back to before its end.

    The state folder has seen a list that was fresh by the true time.
    """
    repository, right = Repository(site), site.folder / "right"

    def expires(when: datetime) -> None:
        repository.stamp(lambda signed: setattr(signed, "expires", when))

    expires(_now() - timedelta(days=1))
    with attacked(
        site,
        repository,
        prepare=lambda: clocks.replace(lambda: 0.0 if right.exists() else -BACK),
    ) as device:
        device.refuses(site.stage.new, r"expired: timestamp.json has ended on .* at least")
        device.complains("set the clock")
        right.touch()
        expires(_now() + timedelta(days=1))
        device.takes(site.stage.new)
        device.complains("")


def _fast_forward(site: Site) -> None:
    repository = Repository(site)
    with attacked(site, repository) as device:
        repository.fast_forward()
        device.refuses(_unlisted_of(site), "is not approved")  # now it knows these versions
        repository.put_back()
        device.refuses(site.stage.new, "cannot be trusted")
        repository.replace_online_keys()
        device.takes(site.stage.new)


def _stolen_online_keys_after_rotation(site: Site) -> None:
    """The thief's web server shows the new root no more to a device that has seen it."""
    repository = Repository(site)
    with attacked(site, repository) as device:
        repository.replace_online_keys()
        device.refuses(_unlisted_of(site), "is not approved")  # now it knows the new root
        (repository.metadata / "2.root.json").unlink()
        repository.list_releases(repository.newest("releases"))
        device.refuses(site.stage.new, "foreign key")


def _foreign_root(site: Site) -> None:
    """Another root that nobody of this one signed."""

    def attack(repository: Repository) -> ReleaseRef:
        first = (repository.metadata / "1.root.json").read_bytes()
        other = Metadata.from_bytes(first)
        other.signed.version = 2
        other.sign(CryptoSigner.generate_ed25519())
        (repository.metadata / "2.root.json").write_bytes(other.to_bytes())
        return site.stage.new

    refuses(site, attack, "foreign key|cannot be trusted")


def _now() -> datetime:
    return datetime.fromtimestamp(int(time.time()), UTC)


ATTACKS: dict[str, tuple[str, Callable[[Site], None]]] = {
    "altered_model": ("the network changes a byte of a model", _changed("model.onnx", _flipped)),
    "altered_manifest": (
        "the network changes a byte of a manifest", _changed("manifest.json", _flipped)
    ),
    "longer_file": ("a file that is longer", _changed("model.onnx", lambda data: data + b"x")),
    "shorter_file": ("a file that is cut", _changed("model.onnx", lambda data: data[:-1])),
    "endless_data": ("every answer goes on and on", _endless),
    "unlisted": ("the server orders a release that nobody approved", _unlisted),
    "other_digest": ("the server orders other bytes of an approved release", _other_digest),
    "revoked": ("the server orders a revoked release", _revoked),
    "foreign_list": ("snapshot and timestamp keys list a foreign list", _foreign_list),
    "older_list": ("snapshot and timestamp keys list an older list", _older_list),
    "mixed_list": ("an older list under a newer name", _mixed),
    "dropped_list": ("snapshot and timestamp keys list no list at all", _dropped_list),
    "renamed_snapshot": ("an older snapshot under a newer name", _renamed_snapshot),
    "older_timestamp": ("the timestamp goes back", _older_timestamp),
    "frozen": ("a timestamp that has ended is shown for ever", _frozen),
    "clock_ahead": ("the device's clock is 400 days ahead", _clock_ahead),
    "clock_back": ("a list that has ended, and the device's clock set back as well", _clock_back),
    "fast_forward": (
        "stolen keys sign versions that no honest list will reach, until root replaces them",
        _fast_forward,
    ),
    "stolen_online_keys_after_rotation": (
        "the keys that root has replaced sign on", _stolen_online_keys_after_rotation
    ),
    "foreign_root": ("a root that the pinned one's keys did not sign", _foreign_root),
}  # fmt: skip

CASES = [
    Case(
        name=name,
        what=what,
        points=lambda site: ["once"],
        run=lambda site, point, attack=attack: attack(site),  # type: ignore[misc]
    )
    for name, (what, attack) in ATTACKS.items()
]
