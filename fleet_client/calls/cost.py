"""What predictions cost, prices and budgets."""

from fleet_client.transport import Calls, Json, part


class CostCalls(Calls):
    """What predictions cost, prices and budgets."""

    def cost(self, days: int | None = None) -> list[Json]:
        """List what predictions of each release cost on each target."""
        return self._items("cost", **({} if days is None else {"days": days}))

    def prices(self) -> list[Json]:
        """List prices by the day from which they hold."""
        return self._items("prices")

    def set_prices(
        self,
        *,
        device_second: float | None = None,
        megabyte: float | None = None,
        label: float | None = None,
        currency: str = "",
        since_ms: int | None = None,
    ) -> Json:
        """Say what a device's second, a megabyte and a label cost from a day on."""
        body = {
            "device_second": device_second,
            "megabyte": megabyte,
            "label": label,
            "currency": currency,
            "since_ms": since_ms,
        }
        return self._put("prices", body)

    def budgets(self) -> list[Json]:
        """List budgets, and how they stand."""
        return self._items("budgets")

    def set_budget(self, model: str, span: str, amount: float) -> Json:
        """Say what a model may cost in a ``day``, a ``month`` or for a ``thousand`` predictions."""
        return self._put(f"budgets/{part(model)}/{part(span)}", {"amount": amount})

    def drop_budget(self, model: str, span: str) -> None:
        """Let a model cost what it does."""
        self._delete(f"budgets/{part(model)}/{part(span)}")
