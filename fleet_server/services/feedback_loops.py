"""Labels of devices that are held out of a model's rollouts, beside all others'."""

from collections import Counter

import msgspec
import sqlalchemy as sa

from fleet_server.config import FairnessConfig
from fleet_server.domain import feedback_loop
from fleet_server.domain.feedback_loop import Group, RateDifference
from fleet_server.domain.labelling import ALL, OutcomeKey, Policy
from fleet_server.services.catalog import Catalog
from fleet_server.services.clock import Clock
from fleet_server.services.label_status import digests_of
from fleet_server.storage import journal, labels, policy_sums, releases
from fleet_server.storage.database import Database

FEEDBACK_LOOP = "feedback_loop"
EVERY_MS = 60_000


class LoopReport(msgspec.Struct, frozen=True, kw_only=True):
    """One model's holdout beside the rest of its fleet."""

    model: str
    holdout: Group
    others: Group
    differences: list[RateDifference]


class FeedbackLoops:
    """Reports, and the watch that raises an alert."""

    def __init__(
        self, database: Database, catalog: Catalog, clock: Clock, config: FairnessConfig
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._clock = clock
        self._config = config
        self._looked_ms: int | None = None

    def of_model(self, model: str) -> LoopReport:
        """Compare a model's holdout with the rest; raise :class:`NotFound`."""
        with self._database.read() as connection:
            return self._report(connection, model)

    def watch(self) -> None:
        """Open an alert for each model whose labels differ inside and outside of its holdout."""
        now = self._clock()
        if self._looked_ms is not None and now - self._looked_ms < EVERY_MS:
            return
        with self._database.write() as connection:
            for model in releases.in_production(connection):
                self._tell(connection, self._report(connection, model), now)
        self._looked_ms = now

    def _tell(self, connection: sa.Connection, report: LoopReport, now_ms: int) -> None:
        found = [d for d in report.differences if d.what != "accuracy" and d.differs]
        if not found:
            journal.close_alert(connection, now_ms, FEEDBACK_LOOP, report.model)
            return
        told = ", ".join(f"{d.what} {d.others or 0:.1%} and {d.holdout or 0:.1%}" for d in found)
        title = f"labels of {report.model} differ outside and inside of its holdout: {told}"
        detail = {"model": report.model, "differences": msgspec.to_builtins(found)}
        if journal.open_alert(connection, now_ms, FEEDBACK_LOOP, report.model, title, detail):
            journal.add_event(connection, now_ms, FEEDBACK_LOOP, report.model, title, detail)

    def _report(self, connection: sa.Connection, model: str) -> LoopReport:
        digests = digests_of(connection, model)
        told = labels.outcomes_of(connection, digests, 0)
        sums = policy_sums.of_model(connection, model, digests)
        groups = {policy: _group(policy, sums.get(policy), told) for policy in sums}
        holdout = groups.get("holdout", _group("holdout", None, told))
        others = groups.get("policy", _group("policy", None, told))
        classes = {c for d in digests for c in self._classes(connection, d)}
        return LoopReport(
            model=model,
            holdout=holdout,
            others=others,
            differences=feedback_loop.compare(
                holdout,
                others,
                sorted(classes),
                design_effect=self._config.rows_per_observation,
                min_rows=self._config.min_rows,
            ),
        )

    def _classes(self, connection: sa.Connection, digest: str) -> list[str]:
        return self._catalog.require(connection, digest).manifest.output.classes


def _group(policy: Policy, sums: policy_sums.PolicySums | None, told: Counter[OutcomeKey]) -> Group:
    found: Counter[str] = Counter()
    for key, count in told.items():
        if key.slice == ALL and key.policy == policy:
            found[key.label] += count
    if sums is None:
        return Group(devices=0, rows=0, labelled=0, labels=found, right=0, wrong=0)
    return Group(
        devices=sums.devices,
        rows=sums.rows,
        labelled=sums.right + sums.wrong,
        labels=found,
        right=sums.right,
        wrong=sums.wrong,
    )
