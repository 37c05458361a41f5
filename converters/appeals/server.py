"""The fleet server's contested predictions, over HTTP."""

from typing import Protocol

import msgspec

from converters.appeals.explaining import Explanation
from converters.fleet_http import FleetHttp
from edge_core.errors import InvalidConfiguration
from edge_core.messages import codec
from edge_core.messages.telemetry import Sample

AT_ONCE = 100
"""Appeals that are looked at in one go, the newest."""


class _Prediction(msgspec.Struct, frozen=True, kw_only=True):
    digest: str


class _About(msgspec.Struct, frozen=True, kw_only=True):
    prediction: _Prediction
    release: str | None
    has_sample: bool


class Contested(msgspec.Struct, frozen=True, kw_only=True):
    """One appeal."""

    appeal: int
    claimed: str | None
    explained_ms: int | None
    about: _About

    @property
    def waits(self) -> bool:
        """Whether it can be explained, and is not."""
        known = self.about.has_sample and self.about.release is not None
        return known and self.explained_ms is None


class _Page(msgspec.Struct, frozen=True, kw_only=True):
    items: list[Contested]


class Appeals(Protocol):
    """Where appeals come from."""

    def waiting(self) -> list[Contested]:
        """Open appeals that can be explained and are not."""
        ...

    def sample(self, appeal: int) -> Sample:
        """What the contested answer was computed from."""
        ...

    def keep(self, appeal: int, explanation: Explanation) -> None:
        """Leave an explanation beside an appeal."""
        ...


class FleetAppeals:
    """Those of a fleet server. Every call raises as :class:`FleetHttp` does."""

    def __init__(self, http: FleetHttp) -> None:
        self._http = http

    def waiting(self) -> list[Contested]:
        """Open appeals that can be explained and are not."""
        answer = self._http.get(f"appeals?state=open&limit={AT_ONCE}")
        try:
            found = msgspec.json.decode(answer, type=_Page).items
        except msgspec.MsgspecError as error:
            raise InvalidConfiguration(f"{self._http.url} is no Serinus server: {error}") from error
        return [contested for contested in found if contested.waits]

    def sample(self, appeal: int) -> Sample:
        """What the contested answer was computed from.

        Raises:
            InvalidMessage: the device sent something else.
        """
        return codec.decode(Sample, self._http.get(f"appeals/{appeal}/sample"))

    def keep(self, appeal: int, explanation: Explanation) -> None:
        """Leave an explanation beside an appeal."""
        self._http.put(f"appeals/{appeal}/explanation", msgspec.to_builtins(explanation))
