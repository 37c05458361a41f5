"""One served model: the release that answers, its shadow, and what its features remember."""

from collections.abc import Callable

from edge_agent.monitor import Role
from edge_agent.serving.release import LoadedRelease
from edge_agent.serving.remembering import Remembering
from edge_agent.serving.work import Active, Totals
from edge_core.errors import InvalidInput
from edge_core.messages.telemetry import Arm


class Lane:
    """To be changed on the event loop; the inference thread reads what requests captured."""

    def __init__(
        self, slices: dict[str, str], *, cache_rows: int, changed: Callable[[], None]
    ) -> None:
        """Serve nothing yet.

        Args:
            slices: the device's own.
            cache_rows: answers that are kept; 0 for none.
            changed: called after another release, or none, answers.
        """
        self._slices = slices
        self._cache_rows = cache_rows
        self._changed = changed
        self._shadow: LoadedRelease | None = None
        self.current: Active | None = None
        """What answers the next request."""
        self.totals = Totals()
        self.remembering = Remembering()
        """What the features remember, and where they began."""

    @property
    def active(self) -> LoadedRelease | None:
        """The release that answers now."""
        return self.current.release if self.current else None

    @property
    def shadow(self) -> LoadedRelease | None:
        """The release that scores the same rows unseen."""
        return self._shadow

    def set_active(self, release: LoadedRelease | None, arm: Arm, rollout: str | None) -> None:
        """Let this release answer from the next request on.

        What its features remember goes on where the definition is the same as before.
        """
        before, self.current = self.current, None
        if before is not None:
            before.shadow = None  # rows of the past are no longer compared
        if release is not None:
            self.current = self._make(release, arm, rollout, before)
        self._changed()

    def set_shadow(self, release: LoadedRelease | None) -> None:
        """Score the same rows with this release, too, unseen by applications.

        Raises:
            InvalidInput: nothing gives its features of the active release's rows.
        """
        if release and self.current:
            problem = self.current.release.shadow_problem(release)
            if problem:
                raise InvalidInput(f"{problem}; it cannot run as its shadow")
        self._shadow = release
        if self.current:
            self.current.shadow = release

    def _make(
        self, release: LoadedRelease, arm: Arm, rollout: str | None, before: Active | None
    ) -> Active:
        role = Role(release=release.ref, target=release.target, arm=arm, rollout=rollout)
        declared = release.manifest.slices
        own = {
            name: value for name, value in self._slices.items() if value in declared.get(name, [])
        }
        same = before is not None and before.release.ref == release.ref
        self.totals = self.totals if same else Totals()
        active = Active(
            release,
            role,
            own,
            self.remembering.memory_of(release),
            totals=self.totals,
            cache_rows=self._cache_rows,
        )
        active.shadow = self._shadow
        return active
