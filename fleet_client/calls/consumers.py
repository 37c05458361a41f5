"""Who uses a model's answers."""

from fleet_client.transport import Calls, Json, part


class ConsumerCalls(Calls):
    """Who uses a model's answers."""

    def consumers(self) -> list[Json]:
        """List who uses which model: who is declared, and who was seen to ask."""
        return self._items("consumers")

    def declare_consumer(self, model: str, consumer: str, owner: str, note: str = "") -> Json:
        """Say that somebody uses a model's answers: no release breaks them unseen."""
        body = {"owner": owner, "note": note}
        return self._put(f"models/{part(model)}/consumers/{part(consumer)}", body)

    def withdraw_consumer(self, model: str, consumer: str) -> None:
        """Say that it uses them no more."""
        self._delete(f"models/{part(model)}/consumers/{part(consumer)}")

    def acknowledge_release(self, model: str, consumer: str, major: int, note: str = "") -> Json:
        """Say that a consumer reads the answers of a MAJOR version rightly."""
        body = {"major": major, "note": note}
        return self._post(f"models/{part(model)}/consumers/{part(consumer)}/acknowledgements", body)
