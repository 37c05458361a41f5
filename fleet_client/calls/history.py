"""How releases fared over time."""

from fleet_client.transport import Calls, Json


class HistoryCalls(Calls):
    """Sums by hour and by day."""

    def history(
        self,
        model: str,
        *,
        release: str | None = None,
        slice_: str | None = None,
        from_ms: int | None = None,
        to_ms: int | None = None,
        resolution: str = "hour",
    ) -> list[Json]:
        """List figures of a model's releases by ``hour`` or ``day``, oldest first.

        ``release`` is ``model@version`` or a digest, ``slice_`` is ``name=value``; times are UTC
        milliseconds, [from, to).
        """
        asked = {"release": release, "slice": slice_, "from_ms": from_ms, "to_ms": to_ms}
        given = {name: value for name, value in asked.items() if value is not None}
        return self._items("history", model=model, resolution=resolution, **given)
