import threading

import numpy as np
import pytest

from edge_agent.monitor import Monitor
from edge_agent.serving.engine import Engine
from edge_agent.serving.metrics import Metrics
from edge_agent.serving.release import LoadedRelease
from edge_agent.serving.tally import FOLD_BATCHES, MAX_KEYS, OTHERS, Served, Tally
from edge_core.release import ReleaseRef
from tests.simulators.failing_session import FailingSession
from tests.simulators.tiny_bundle import tiny_rows

SERVED = Served("m", "1.0.0", "model")


@pytest.mark.parametrize("batches", [1, FOLD_BATCHES - 1, FOLD_BATCHES, 3 * FOLD_BATCHES + 1])
def test_every_row_is_counted_with_its_latency(batches: int) -> None:
    tally = Tally()
    for _ in range(batches):
        tally.answered(SERVED, np.array([3.0, 100.0]))
    counts, total = tally.latency[SERVED]
    assert tally.rows == {SERVED: 2 * batches}
    assert (counts[1], counts[6], sum(counts)) == (batches, batches, 2 * batches)
    assert total == 103 * batches
    tally.answered(SERVED, np.array([3.0]))
    assert sum(tally.latency[SERVED][0]) == 2 * batches + 1


def test_names_from_outside_are_bounded() -> None:
    tally = Tally()
    for number in range(MAX_KEYS + 50):
        tally.consumed(f"c{number}", "m", 2)
        tally.answered(Served("m", f"1.0.{number}", "model"), np.ones(1))
    assert len(tally.consumers) == MAX_KEYS + 1
    assert sum(tally.consumers.values()) == 2 * (MAX_KEYS + 50)
    assert tally.consumers[OTHERS, OTHERS] == 100
    assert len(tally.rows) == MAX_KEYS + 1
    assert sum(tally.rows.values()) == MAX_KEYS + 50


def test_two_threads_lose_nothing() -> None:
    tally = Tally()

    def count() -> None:
        for _ in range(2000):
            tally.answered(SERVED, np.ones(1))
            tally.refused("rest", "InvalidInput")

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert sum(count for counts, _ in tally.latency.values() for count in counts) <= 6000
    assert tally.rows == {SERVED: 6000}
    assert sum(tally.latency[SERVED][0]) == 6000
    assert tally.refusals == {("rest", "InvalidInput"): 6000}


def test_errors_and_late_events_are_told_apart_by_release() -> None:
    tally = Tally()
    tally.failed(ReleaseRef(model="m", version="1.0.0", digest="1" * 64), 3)
    tally.failed(ReleaseRef(model="m", version="1.1.0", digest="2" * 64), 1)
    tally.late(ReleaseRef(model="m", version="1.0.0", digest="1" * 64), 2)
    assert tally.errors == {("m", "1.0.0"): 3, ("m", "1.1.0"): 1}
    assert tally.late_events == {("m", "1.0.0"): 2}


@pytest.mark.anyio
async def test_metrics_tell_fallbacks_errors_and_late_samples(
    monitor: Monitor, release: LoadedRelease
) -> None:
    engine = Engine(monitor, slices={}, max_queue_rows=64, now_us=lambda: 0)
    engine.set_active(release, "incumbent", None)
    failing = release.session = FailingSession(release.session)
    await engine.predict(tiny_rows(2)[0])
    failing.mode = "refuses"
    await engine.predict(tiny_rows(3)[0])
    failing.mode = "works"
    times = [20_000, 20_000, 40_000]
    await engine.push("wrist", times, np.zeros((3, 2), np.float32))
    await engine.close()
    status = {"connected": True, "unsent_bytes": 7, "update": "committed", "dropped_messages": 2}
    text = Metrics(engine, "0.1.0", lambda: status).text().decode()
    release_labels = 'model="tiny-motion",version="1.0.0"'
    for line in (
        'serinus_predictions_total{model="tiny-motion",served_by="model",version="1.0.0"} 2.0',
        'serinus_predictions_total{model="tiny-motion",served_by="fallback",version="1.0.0"} 3.0',
        f"serinus_fallbacks_total{{{release_labels}}} 3.0",
        f"serinus_model_errors_total{{{release_labels}}} 3.0",
        f"serinus_late_events_total{{{release_labels}}} 1.0",
        'serinus_update_state{state="committed"} 1.0',
        'serinus_update_state{state="failed"} 0.0',
        "serinus_connected 1.0",
        "serinus_outbox_bytes 7.0",
        "serinus_outbox_dropped_messages_total 2.0",
        "serinus_queue_rows 0.0",
        "serinus_queue_limit_rows 64.0",
        'serinus_agent_info{version="0.1.0"} 1.0',
    ):
        assert f"\n{line}\n" in text


@pytest.mark.anyio
async def test_metrics_are_text_that_prometheus_reads(
    monitor: Monitor, release: LoadedRelease
) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    engine = Engine(monitor, slices={}, max_queue_rows=64, now_us=lambda: 0)
    engine.set_active(release, "incumbent", None)
    await engine.predict(tiny_rows(4)[0])
    await engine.close()
    text = Metrics(engine, "0.1.0", dict).text().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["serinus_prediction_latency_seconds"].type == "histogram"
    assert families["serinus_predictions"].type == "counter"
    assert all(family.documentation for family in families.values())
    names = [name for name in families if name.startswith("serinus_")]
    assert not [name for name in names if name.endswith(("_ms", "_us", "_total"))]
