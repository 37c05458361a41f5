"""What both ends know of a release, so that a window need not say it."""

from collections.abc import Mapping
from typing import Self

import msgspec

from edge_core.bundle.manifest import Manifest
from edge_core.messages.telemetry import TAG_BYTES
from edge_core.release import ReleaseRef
from edge_core.stats import latency, noise
from edge_core.stats.histogram import Reference


class WindowSchema(msgspec.Struct, frozen=True, kw_only=True):
    """Names and sizes that a window's numbers refer to, from the release's signed bundle."""

    release: ReleaseRef
    targets: tuple[str, ...]
    """In order of their names."""
    slices: tuple[tuple[str, tuple[str, ...]], ...]
    """Declared names in order, and their values as declared."""
    sizes: tuple[int, ...]
    """Counts of each channel, in the reference's order."""
    confidence_size: int
    epsilon: float | None
    """Privacy that the manifest asks for; none: counts are exact."""
    values: tuple[int, ...]
    """Values that one row adds to each channel."""

    @classmethod
    def of(
        cls, release: ReleaseRef, manifest: Manifest, reference: Reference, samples: int
    ) -> Self:
        """Take together what the bundle says; ``samples`` are those of one raw row."""
        privacy = manifest.privacy
        return cls(
            release=release,
            targets=tuple(sorted(variant.target for variant in manifest.variants)),
            slices=tuple((n, tuple(values)) for n, values in sorted(manifest.slices.items())),
            sizes=tuple(channel.size for channel in reference.channels),
            confidence_size=reference.channels[-2].size,
            epsilon=privacy.epsilon if privacy else None,
            values=tuple(samples if c.kind == "input" else 1 for c in reference.channels),
        )

    def declared(self, slices: Mapping[str, str]) -> dict[str, str]:
        """Those that the release declares, of slices that another one may have named."""
        known = dict(self.slices)
        return {name: value for name, value in slices.items() if value in known.get(name, ())}

    @property
    def groups(self) -> int:
        """Groups of counts that one row adds to: channels, its label, agreement and its pair."""
        return len(self.sizes) + 3

    @property
    def channel_ratios(self) -> list[float]:
        """Of each channel's noise (:mod:`edge_core.stats.noise`); empty where there is none."""
        if self.epsilon is None:
            return []
        return [noise.ratio(self.epsilon, self.groups, values) for values in self.values]

    @property
    def outcome_ratio(self) -> float:
        """Of the noise of labels and pairs."""
        assert self.epsilon is not None
        return noise.ratio(self.epsilon, self.groups, 1)

    @property
    def tag(self) -> bytes:
        """How a window names the release."""
        return tag_of(self.release.digest)

    @property
    def packed_sizes(self) -> tuple[int, ...]:
        """Counts of each packed channel: the reference's, latency, right and wrong labels."""
        return (*self.sizes, latency.BINS, self.confidence_size, self.confidence_size)


def tag_of(digest: str) -> bytes:
    """The beginning of a digest."""
    return bytes.fromhex(digest[: 2 * TAG_BYTES])
