"""How devices, releases and production are shown; built from what is stored."""

from typing import Any

import msgspec

from fleet_server.services.catalog import Release
from fleet_server.services.cost import CostView
from fleet_server.storage.desired_states import Desired
from fleet_server.storage.devices import Device
from fleet_server.storage.windows import Totals


class NamedRelease(msgspec.Struct, frozen=True, kw_only=True):
    """A release as people and programs name it; the name is none for one not approved here."""

    name: str | None
    digest: str


class DesiredView(msgspec.Struct, frozen=True, kw_only=True):
    """What a device should run."""

    revision: int
    active: NamedRelease | None
    shadow: NamedRelease | None
    arm: str
    rollout: str | None


class DeviceView(msgspec.Struct, frozen=True, kw_only=True):
    """One device."""

    device: str
    target: str | None
    runtime: str
    slices: dict[str, str]
    online: bool
    first_seen_ms: int
    last_seen_ms: int
    active: NamedRelease | None
    active_since_ms: int | None
    shadow: NamedRelease | None
    update: str | None
    reason: str
    desired: DesiredView | None
    confirmed: bool
    """Whether the device has committed what is desired of it."""
    lost_windows: int
    reported: dict[str, Any] | None = None


class ParityView(msgspec.Struct, frozen=True, kw_only=True):
    """Sampled predictions of a release whose features were computed again by the server."""

    compared: int = 0
    mismatches: int = 0
    features: dict[str, int] = {}
    """Mismatches of each feature that had some, the most first."""
    not_possible: int = 0
    """Samples that keep back everything to compute them from."""
    redacted: list[str] = []
    """Features that are never compared, for they depend on what samples leave out."""


class ReleaseView(msgspec.Struct, frozen=True, kw_only=True):
    """One release, with what its manifest says that people ask first."""

    name: str
    model: str
    version: str
    digest: str
    listed: bool
    listed_ms: int
    revoked_ms: int | None
    parent: str | None
    targets: list[str]
    metrics: dict[str, float]
    gates: list[dict[str, Any]]
    waivers: list[dict[str, Any]]
    datasets: list[dict[str, Any]]
    code_commit: str | None
    code_dirty: bool | None
    recipe_sha256: str
    devices: int
    accuracy: float | None
    """Share of right answers among the fleet's labelled rows."""
    labelled: int
    noisy: bool
    """Whether its counts, and so its accuracy, carry noise for privacy."""
    parity: ParityView


class ProductionView(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's devices run, since when, who decided it and what it was built from."""

    model: str
    release: str
    digest: str
    since_ms: int
    devices: int
    others: dict[str, int]
    """Devices that run another release of the model, by its name."""
    cost: CostView | None
    """None until a device has sent a window of it."""
    decided_by: dict[str, Any]
    built_from: dict[str, Any]


class PastProduction(msgspec.Struct, frozen=True, kw_only=True):
    """A release that was in production for a time; without an end it is still."""

    model: str
    release: str
    digest: str
    since_ms: int
    until_ms: int | None
    decided_by: dict[str, Any]
    """Rollout, the verdict that let it pass, and who started it."""
    devices: dict[str, int] | None
    """Release -> devices that ran it at the moment that was asked for; none where none was."""
    built_from: dict[str, Any] | None
    """None where the release is not known any more."""


class FleetView(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet in numbers."""

    devices: int
    online: int
    predictions: int
    errors: int
    lost_windows: int
    parity_compared: int
    parity_mismatches: int
    rejected: int
    refusals: int
    open_alerts: int


def _named(digest: str | None, names: dict[str, str]) -> NamedRelease | None:
    return None if digest is None else NamedRelease(name=names.get(digest), digest=digest)


def device_view(
    device: Device, wish: Desired | None, names: dict[str, str], lost: int
) -> DeviceView:
    """Show a device beside what is desired of it."""
    view = None
    if wish is not None:
        view = DesiredView(
            revision=wish.revision,
            active=_named(wish.active, names),
            shadow=_named(wish.shadow, names),
            arm=wish.arm,
            rollout=wish.rollout,
        )
    return DeviceView(
        device=device.device,
        target=device.target,
        runtime=device.runtime,
        slices=device.slices,
        online=device.online,
        first_seen_ms=device.first_seen_ms,
        last_seen_ms=device.last_seen_ms,
        active=_named(device.active, names),
        active_since_ms=device.active_since_ms,
        shadow=_named(device.shadow, names),
        update=device.update_state,
        reason=device.reason,
        desired=view,
        confirmed=(
            wish is not None
            and device.desired_revision == wish.revision
            and device.active == wish.active
            and device.shadow == wish.shadow
            and device.update_state in ("committed", "idle")
        ),
        lost_windows=lost,
    )


def release_view(
    release: Release, running: int, sums: Totals | None, parity: ParityView
) -> ReleaseView:
    """Show a release beside what the fleet's labels and samples say of it."""
    manifest = release.manifest
    known = sums.right + sums.wrong if sums else 0
    built = built_from(release)
    return ReleaseView(
        name=release.ref.name,
        model=release.ref.model,
        version=release.ref.version,
        digest=release.ref.digest,
        listed=release.listed,
        listed_ms=release.listed_ms,
        revoked_ms=release.revoked_ms,
        parent=built["parent"],
        targets=[variant.target for variant in manifest.variants],
        metrics=manifest.metrics,
        gates=built["gates"],
        waivers=built["waivers"],
        datasets=built["datasets"],
        code_commit=manifest.provenance.code_commit,
        code_dirty=manifest.provenance.code_dirty,
        recipe_sha256=manifest.provenance.recipe_sha256,
        devices=running,
        accuracy=sums.right / known if sums and known > 0 else None,
        labelled=known,
        noisy=release.window_schema.epsilon is not None,
        parity=parity,
    )


def built_from(release: Release) -> dict[str, Any]:
    """Tell what a release was made of, from its signed manifest."""
    manifest = release.manifest
    return {
        "parent": manifest.parent.name if manifest.parent else None,
        "datasets": msgspec.to_builtins(manifest.datasets),
        "snapshot": msgspec.to_builtins(manifest.snapshot),
        "recipe": manifest.provenance.recipe,
        "recipe_sha256": manifest.provenance.recipe_sha256,
        "code_commit": manifest.provenance.code_commit,
        "code_dirty": manifest.provenance.code_dirty,
        "seed": manifest.provenance.seed,
        "gates": msgspec.to_builtins(manifest.gates),
        "waivers": msgspec.to_builtins(manifest.waivers),
    }
