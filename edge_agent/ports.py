"""What the agent's rules need of the world, so that each of them runs in a test without it."""

from pathlib import Path
from typing import Protocol

from edge_agent.conduct import Conduct
from edge_agent.serving.engine import Totals
from edge_agent.serving.release import LoadedRelease
from edge_core.bundle.manifest import FileEntry
from edge_core.messages.telemetry import Arm
from edge_core.release import ReleaseRef


class Clock(Protocol):
    """Wall-clock time for messages, monotonic time for durations."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that only go forward."""
        ...


class ApprovedReleases(Protocol):
    """The release repository: only what the release team listed comes out of it."""

    def manifest(self, ref: ReleaseRef) -> bytes:
        """The approved manifest's bytes, whose digest is the reference's.

        Raises:
            ReleaseNotApproved: it is not listed, or with another digest.
            UntrustedBundle: the repository's metadata cannot be trusted.
            Unavailable: the repository cannot be reached now.
        """
        ...

    def file(self, ref: ReleaseRef, entry: FileEntry, destination: Path) -> None:
        """Fetch one file of the release; raises as :meth:`manifest`, or ``InvalidBundle``."""
        ...

    def cancel(self) -> None:
        """End what is being fetched, from another thread; it raises ``Unavailable`` there.

        So does what begins afterwards, until :meth:`renew`.
        """
        ...

    def renew(self) -> None:
        """Allow fetching again."""
        ...

    def clean(self) -> None:
        """Remove what was fetched and not taken."""
        ...


class Behaviour(Protocol):
    """What the releases of this process did so far."""

    def conduct(self, release: ReleaseRef, *, lately: bool = False) -> Conduct:
        """How a release's model answered since the process began, or lately only."""
        ...


class Server(Protocol):
    """The part that answers applications."""

    totals: Totals

    @property
    def active(self) -> LoadedRelease | None:
        """The release that answers now."""
        ...

    @property
    def shadow(self) -> LoadedRelease | None:
        """The release that scores the same rows unseen."""
        ...

    def set_active(self, release: LoadedRelease | None, arm: Arm, rollout: str | None) -> None:
        """Let this release answer from now on."""
        ...

    def set_shadow(self, release: LoadedRelease | None) -> None:
        """Let this release score the same rows; raise ``InvalidInput`` where it cannot."""
        ...
