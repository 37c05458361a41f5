"""What golden rows cannot show is said when a bundle is built and when it is verified."""

import numpy as np

from converters.data import log_rows
from converters.data.dataset import LabelledLog
from converters.replay import golden_coverage
from edge_core.bundle import golden as goldens
from edge_core.bundle.golden import Golden
from edge_core.features.logs import Events, Log

from .parity_case import DEFINITION, log


def told(raw: Log) -> list[str]:
    return golden_coverage.told(DEFINITION, Golden(raw, goldens.features(DEFINITION, raw), {}))


def test_a_log_with_every_case_lacks_nothing() -> None:
    assert told(log()) == ["golden rows: 27 of 27 features vary"]


def test_what_never_changes_and_what_the_log_has_not_is_named() -> None:
    whole = log()
    places = np.flatnonzero(np.array(whole.request["place"]) == "a")[:9]
    request = {
        name: np.array(column, object)[places].tolist() for name, column in whole.request.items()
    }
    events = {name: given.only(np.arange(0)) for name, given in whole.events.items()}
    same, lacking = told(Log(events, request))
    assert "27 features vary; the same in every row: count, sum, mean" in same
    assert "late events" in lacking
    assert "changes of clocks" in lacking


def test_golden_requests_are_spread_over_the_golden_span() -> None:
    whole = log()
    count = len(whole.request["at"])
    offered = LabelledLog(
        log=whole,
        labels=["no", "yes"] * (count // 2),
        roles=["train", "calibration", "test", *["golden"] * (count - 3)],
        slices={},
    )
    snapshot = log_rows.cut(DEFINITION, ["no", "yes"], {}, offered)
    assert isinstance(snapshot.golden_log, Log)
    asked = np.asarray(snapshot.golden_log.request["at"])
    assert len(asked) == log_rows.GOLDEN_REQUESTS
    golden = np.sort(np.asarray(whole.request["at"])[3:])
    assert (asked[0], asked[-1]) == (golden[0], golden[-1])
    kept = snapshot.golden_log.events["seen"]
    assert isinstance(kept, Events)
    served = goldens.served(DEFINITION, snapshot.golden_log)
    assert served.tobytes() == snapshot.rows["golden"].features.tobytes()
