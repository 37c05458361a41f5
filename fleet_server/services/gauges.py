"""Numbers of the parts that run beside the services, asked when somebody looks."""

from collections.abc import Callable

Source = Callable[[], float]


class Gauges:
    """Sources by name; a part that is not there, in a process of another role, tells nothing."""

    def __init__(self) -> None:
        self._sources: dict[str, Source] = {}

    def add(self, name: str, source: Source) -> None:
        """Ask a part for this number from now on."""
        self._sources[name] = source

    def __call__(self) -> dict[str, float]:
        """Every number now."""
        return {name: float(source()) for name, source in sorted(self._sources.items())}
