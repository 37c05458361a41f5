"""Labels, predictions, fairness and appeals."""

from collections.abc import Sequence

from fleet_client.transport import MOST, Calls, Json, part


class LabelCalls(Calls):
    """Labels, predictions, fairness and appeals."""

    def tell_labels(self, labels: Sequence[Json]) -> Json:
        """Tell labels: ``prediction_id``, ``label``, ``known_ms``, ``answer``; says what became.

        The same again changes nothing, so a batch that may have arrived can be sent again.
        """
        return self._post("labels", {"items": list(labels)})

    def label_status(self, model: str) -> Json:
        """Tell how many labels of a model came, and how late."""
        return self._get("labels", model=model)

    def prediction(self, prediction: str) -> Json:
        """Show a prediction with its release and its labels."""
        return self._get(f"predictions/{part(prediction)}")

    def fairness(self, release: str) -> Json:
        """Show how a release fares on each declared slice."""
        return self._get("fairness", release=release)

    def holdout(self, model: str) -> Json:
        """Compare labels of held-out devices with all others'."""
        return self._get("holdout", model=model)

    def appeals(self, state: str | None = None, limit: int = MOST) -> list[Json]:
        """List contested predictions, newest first."""
        return self._first("appeals", limit, **({"state": state} if state else {}))

    def appeal(self, number: int) -> Json:
        """Show one appeal."""
        return self._get(f"appeals/{number}")

    def open_appeal(
        self, prediction: str, reason: str, *, label: str | None = None, contact: str = ""
    ) -> Json:
        """Contest a prediction; ``label`` is what it should have been."""
        body = {"prediction_id": prediction, "reason": reason, "label": label, "contact": contact}
        return self._post("appeals", body)

    def decide_appeal(
        self, number: int, decision: str, reason: str, *, label: str | None = None
    ) -> Json:
        """``upheld``, ``rejected`` or ``withdrawn``; an upheld one corrects the label."""
        body = {"decision": decision, "reason": reason, "label": label}
        return self._post(f"appeals/{number}/decision", body)

    def appeal_sample(self, number: int) -> bytes:
        """What the contested answer was computed from, as its device sent it (msgpack)."""
        return self._bytes(f"appeals/{number}/sample")

    def explain_appeal(self, number: int, explanation: Json) -> Json:
        """Keep ``method``, ``contributions`` by input and a ``note`` on a contested answer."""
        return self._put(f"appeals/{number}/explanation", explanation)
