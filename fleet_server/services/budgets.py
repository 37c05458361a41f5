"""Prices and budgets that operators set, and the watch that says when a model costs too much."""

import math

import msgspec
import sqlalchemy as sa

from fleet_server.domain import budget, pricing
from fleet_server.domain.budget import Span
from fleet_server.domain.pricing import Amounts
from fleet_server.services.clock import Clock
from fleet_server.services.cost import amounts
from fleet_server.services.errors import InvalidRequest, NotFound
from fleet_server.storage import audit, budgets, costs, journal, releases
from fleet_server.storage.budgets import StoredBudget, StoredPrices
from fleet_server.storage.database import Database

BUDGET = "budget"
EVERY_MS = 60_000
MOST = 1e9
"""Of a price or a budget."""
MAX_CURRENCY = 8
WORDS: dict[Span, str] = {
    "day": "today",
    "month": "this month",
    "thousand": f"a thousand predictions of the last {budget.RECENT_DAYS} days",
}


class BudgetView(msgspec.Struct, frozen=True, kw_only=True):
    """A budget beside what was spent."""

    model: str
    span: Span
    amount: float
    currency: str
    spent: float | None
    """None where nothing has a price, or too little was predicted."""
    expected: float | None
    """At the end of the day or month, if it goes on like this."""
    exceeded: bool
    set_ms: int
    set_by: str


class Budgets:
    """Use cases on prices and budgets."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._looked_ms: int | None = None

    def prices(self) -> list[StoredPrices]:
        """All prices by the day from which they hold."""
        with self._database.read() as connection:
            return budgets.every_price(connection)

    def set_prices(
        self,
        *,
        device_second: float | None,
        megabyte: float | None,
        label: float | None,
        currency: str,
        since_ms: int | None,
        by: str,
        role: str,
    ) -> StoredPrices:
        """Say what a device's second, a megabyte and a label cost, from a day on.

        Raises:
            InvalidRequest: no price at all, one out of range, or a day to come.
        """
        told = {"device_second": device_second, "megabyte": megabyte, "label": label}
        named = {name: price for name, price in told.items() if price is not None}
        if not named:
            raise InvalidRequest("name at least one of device_second, megabyte and label")
        for name, price in named.items():
            if not (math.isfinite(price) and 0 <= price <= MOST):
                raise InvalidRequest(f"{name} is 0 to {MOST:.0e}")
        if len(currency) > MAX_CURRENCY or (currency and not currency.isprintable()):
            raise InvalidRequest(f"a currency has at most {MAX_CURRENCY} printable letters")
        now = self._clock()
        if since_ms is not None and not 0 <= since_ms <= now:
            raise InvalidRequest("prices hold from today on, or from a day that is past")
        row = StoredPrices(
            day=budget.day_of(now if since_ms is None else since_ms),
            **told,
            currency=currency,
            set_ms=now,
            set_by=by,
        )
        with self._database.write() as connection:
            budgets.put_prices(connection, row)
            audit.record(
                connection, at_ms=now, actor=by, role=role, action="prices.set", subject="",
                detail={**named, "currency": currency, "day": row.day},
            )  # fmt: skip
        self._looked_ms = None
        return row

    def every(self) -> list[BudgetView]:
        """All budgets, and how they stand."""
        with self._database.read() as connection:
            return self._views(connection)

    def set(self, model: str, span: str, amount: float, *, by: str, role: str) -> BudgetView:
        """Say what a model may cost.

        Raises:
            InvalidRequest: no such span, or an amount out of range.
            NotFound: no release of the model was ever approved.
        """
        checked = _span(span)
        if not (math.isfinite(amount) and 0 < amount <= MOST):
            raise InvalidRequest(f"a budget is above 0 and at most {MOST:.0e}")
        with self._database.write() as connection:
            if all(ref.model != model for ref in releases.identities(connection)):
                raise NotFound(f"no release of {model[:64]!r} was ever approved")
            now = self._clock()
            row = StoredBudget(model=model, span=checked, amount=amount, set_ms=now, set_by=by)
            budgets.put(connection, row)
            audit.record(
                connection, at_ms=now, actor=by, role=role, action="budget.set", subject=model,
                detail={"span": span, "amount": amount},
            )  # fmt: skip
            found = self._views(connection)
        self._looked_ms = None
        return next(view for view in found if (view.model, view.span) == (model, checked))

    def drop(self, model: str, span: str, *, by: str, role: str) -> None:
        """Let a model cost what it does; raise :class:`NotFound`."""
        checked = _span(span)
        with self._database.write() as connection:
            if not budgets.drop(connection, model, checked):
                raise NotFound(f"no budget of {model[:64]!r} by {span}; see: serinus budget list")
            now = self._clock()
            audit.record(
                connection, at_ms=now, actor=by, role=role, action="budget.drop", subject=model,
                detail={"span": span},
            )  # fmt: skip
            journal.close_alert(connection, now, BUDGET, f"{model} {span}")

    def watch(self) -> None:
        """Open an alert for each budget that is exceeded, and close it when it is not."""
        now = self._clock()
        if self._looked_ms is not None and now - self._looked_ms < EVERY_MS:
            return
        with self._database.write() as connection:
            for view in self._views(connection):
                _tell(connection, view, now)
        self._looked_ms = now

    def _views(self, connection: sa.Connection) -> list[BudgetView]:
        now = self._clock()
        rows = budgets.every(connection)
        prices = budgets.every_price(connection)
        used = _used(connection, min((budget.first_day(r.span, now) for r in rows), default=0))
        found = []
        for row in rows:
            first = budget.first_day(row.span, now)
            own = [each for each in used.get(row.model, []) if each.day >= first]
            state = budget.judge(row.span, row.amount, _spent(row.span, own, prices), now)
            view = BudgetView(
                model=row.model,
                span=row.span,
                amount=row.amount,
                currency=prices[-1].currency if prices else "",
                spent=state.spent,
                expected=state.expected,
                exceeded=state.exceeded,
                set_ms=row.set_ms,
                set_by=row.set_by,
            )
            found.append(view)
        return found


def _span(text: str) -> Span:
    for span in WORDS:
        if span == text:
            return span
    raise InvalidRequest(f"a budget is for a {', a '.join(WORDS)}")


def _used(connection: sa.Connection, first_day: int) -> dict[str, list[Amounts]]:
    """What each model's releases used, by day."""
    models = {ref.digest: ref.model for ref in releases.identities(connection)}
    found: dict[str, list[Amounts]] = {}
    for key, counts in costs.since(connection, first_day).items():
        if key.digest in models:
            found.setdefault(models[key.digest], []).append(amounts(key, counts))
    return found


def _spent(span: Span, used: list[Amounts], prices: list[StoredPrices]) -> float | None:
    if span != "thousand":
        spent = pricing.money(used, prices)
        return None if spent is None else spent.total
    if sum(each.predictions for each in used) < budget.LEAST_PREDICTIONS:
        return None
    each = pricing.per_thousand(used, prices)
    return None if each is None else each.total


def _tell(connection: sa.Connection, view: BudgetView, now_ms: int) -> None:
    subject = f"{view.model} {view.span}"
    if not view.exceeded or view.spent is None:
        journal.close_alert(connection, now_ms, BUDGET, subject)
        return
    title = (
        f"{view.model} has cost {view.spent:.4g} of {view.amount:.4g} {view.currency}".rstrip()
        + f" for {WORDS[view.span]}"
    )
    detail = {"model": view.model, "span": view.span, "spent": view.spent, "amount": view.amount}
    if journal.open_alert(connection, now_ms, BUDGET, subject, title, detail):
        journal.add_event(connection, now_ms, BUDGET, view.model, title, detail)
