"""Who answers, the model or its baseline, and why: orders, breakers, missing inputs. No I/O.

An order goes before everything: whoever gave it wants no surprise. Missing inputs come next, since
the model could not take them anyway, and they say nothing about whether it works.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import msgspec

from edge_agent.serving.breaker import Breaker, Limits, State
from edge_agent.serving.release import LoadedRelease
from edge_core.messages.telemetry import Cause, FallbackMode

MAX_BREAKERS = 16

Missing = Literal["fallback", "refuse"]

log = logging.getLogger(__name__)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody wants a model's baseline to answer."""

    model: str
    reason: str
    since_ms: int
    until_ms: int | None = None
    """UTC; none: until another order."""

    def holds(self, now_ms: int) -> bool:
        """Whether it is in force."""
        return self.until_ms is None or now_ms < self.until_ms


class Policy:
    """Decides for each batch. Orders come from the event loop; all else is the inference thread's.

    A breaker belongs to a release: the one that answers after a recovery begins with its own.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        now_us: Callable[[], int],
        monotonic: Callable[[], float],
        missing: Missing,
    ) -> None:
        self._limits = limits
        self._now_us = now_us
        self._monotonic = monotonic
        self._orders: Mapping[str, Order] = {}
        self._breakers: dict[str, Breaker] = {}
        self._opened_ms: dict[str, int] = {}
        self.missing: Missing = missing
        """What becomes of rows that lack inputs which the definition refuses."""
        self.rows: dict[Cause, int] = dict.fromkeys(("missing", "error", "breaker", "command"), 0)
        """Rows that baselines answered, by cause, since the process began."""

    def order(self, orders: Iterable[Order]) -> None:
        """Replace all orders; the next batch follows them."""
        self._orders = {order.model: order for order in orders}

    def instead(self, release: LoadedRelease, *, incomplete: bool) -> Cause | None:
        """Why the baseline answers this batch; none where the model has to be asked.

        After none, the outcome has to be told by :meth:`answered` or :meth:`failed`.
        """
        if self._orders and self._ordered(release.ref.model, self._now_us() // 1000):
            return "command"
        if incomplete:
            return "missing"
        breaker = self._breakers.get(release.ref.digest)
        if breaker is None or breaker.asks(self._monotonic()):
            return None
        return "breaker"

    def answered(self, release: LoadedRelease) -> None:
        """The model answered."""
        breaker = self._breakers.get(release.ref.digest)
        if breaker is None:
            return  # it never failed
        tried = breaker.state is not State.CLOSED
        breaker.answered(self._monotonic())
        if tried:
            log.warning("%s works again and is asked again", release.ref.name)

    def failed(self, release: LoadedRelease, reason: str) -> None:
        """The model failed."""
        digest = release.ref.digest
        breaker = self._breakers.get(digest)
        if breaker is None:
            breaker = self._breakers[digest] = Breaker(self._limits)
            if len(self._breakers) > MAX_BREAKERS:
                oldest = next(iter(self._breakers))
                del self._breakers[oldest]
                self._opened_ms.pop(oldest, None)
        was_closed, opened = breaker.state is State.CLOSED, breaker.opened
        breaker.failed(self._monotonic())
        if breaker.opened > opened and was_closed:
            self._opened_ms[digest] = self._now_us() // 1000
            log.warning(
                "%s failed too often and is left alone for a while, its baseline answers: %s",
                release.ref.name,
                reason,
            )

    def mode(self, release: LoadedRelease | None) -> FallbackMode | None:
        """Why a release's baseline answers whatever comes; none where the model is asked."""
        if release is None:
            return None
        order = self._ordered(release.ref.model, self._now_us() // 1000)
        if order is not None:
            return FallbackMode(
                model=order.model,
                cause="command",
                reason=order.reason,
                since_ms=order.since_ms,
                until_ms=order.until_ms,
            )
        breaker = self._breakers.get(release.ref.digest)
        if breaker is None or breaker.state is State.CLOSED:
            return None
        return FallbackMode(
            model=release.ref.model,
            cause="breaker",
            reason="the model failed too often",
            since_ms=self._opened_ms.get(release.ref.digest, 0),
        )

    def _ordered(self, model: str, now_ms: int) -> Order | None:
        order = self._orders.get(model)
        return order if order is not None and order.holds(now_ms) else None
