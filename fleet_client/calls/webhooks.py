"""Who is told of events."""

from collections.abc import Sequence

from fleet_client.transport import MOST, Calls, Json, part


class WebhookCalls(Calls):
    """Who is told of events."""

    def webhooks(self) -> list[Json]:
        """List receivers."""
        return self._items("webhooks")

    def create_webhook(self, name: str, url: str, kinds: Sequence[str] = ("page",)) -> Json:
        """Tell a receiver of events; the answer holds the secret that signs, once."""
        return self._post("webhooks", {"name": name, "url": url, "kinds": list(kinds)})

    def remove_webhook(self, name: str) -> None:
        """Tell a receiver no more."""
        self._delete(f"webhooks/{part(name)}")

    def test_webhook(self, name: str) -> Json:
        """Send a receiver a message that means nothing."""
        return self._post(f"webhooks/{part(name)}/test", None)

    def deliveries(self, name: str, limit: int = MOST) -> list[Json]:
        """List a receiver's messages, newest first."""
        return self._first(f"webhooks/{part(name)}/deliveries", limit)

    def redeliver(self, delivery: int) -> Json:
        """Send a message once more, now."""
        return self._post(f"webhooks/deliveries/{delivery}/redeliver", None)
