"""Releases of requests on their way onto a device: the golden log decides before they serve."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.serving.release import LoadedRelease
from edge_agent.update.self_test import self_test
from edge_core.bundle import golden as goldens
from edge_core.bundle import manifest as manifests
from edge_core.bundle.golden import Golden
from edge_core.errors import InvalidBundle, SerinusError
from edge_core.features.logs import Events, Log
from edge_core.features.requests import Keep
from tests.simulators import updating
from tests.simulators.repository import RepositorySimulator
from tests.simulators.tiny_bundle import TARGET, tiny_bundle
from tests.simulators.tiny_requests import SECOND, define, tiny_requests

PLAIN = define()


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Golden:
    folder = tiny_requests(tmp_path_factory.mktemp("plain"))
    return goldens.unpack((folder / manifests.GOLDEN).read_bytes())


def with_log(golden: Golden, **changes: Any) -> Golden:
    assert isinstance(golden.raw, Log)
    return golden._replace(raw=golden.raw._replace(**changes))


def with_events(golden: Golden, **changes: Any) -> Golden:
    assert isinstance(golden.raw, Log)
    events = golden.raw.events["parcels"]._replace(**changes)
    return with_log(golden, events={"parcels": events})


def events_of(golden: Golden) -> Events:
    assert isinstance(golden.raw, Log)
    return golden.raw.events["parcels"]


def later_arrivals(golden: Golden) -> Golden:
    arrived = np.asarray(events_of(golden).arrived_us) + 20 * SECOND
    return with_events(golden, arrived_us=arrived)


def one_event_less(golden: Golden) -> Golden:
    kept = np.arange(len(np.asarray(events_of(golden).times_us)) - 20)
    return with_log(golden, events={"parcels": events_of(golden).only(kept)})


def another_weight(golden: Golden) -> Golden:
    events = events_of(golden)
    weight = np.nan_to_num(np.array(events.fields["weight"], np.float32)) + 1
    return with_events(golden, fields={**events.fields, "weight": weight})


def another_place(golden: Golden) -> Golden:
    assert isinstance(golden.raw, Log)
    request = golden.raw.request
    return with_log(golden, request={**request, "place": ["p9" for _ in request["place"]]})


def one_bit(golden: Golden) -> Golden:
    features = golden.features.copy()
    features[3, 2] = np.nextafter(features[3, 2], np.float32(100), dtype=np.float32)
    return golden._replace(features=features)


def other_logits(golden: Golden) -> Golden:
    return golden._replace(expected={TARGET: golden.expected[TARGET] + np.float32(0.01)})


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (later_arrivals, "features of 1?[0-9] of 16 golden rows differ"),
        (one_event_less, "features of 1?[0-9] of 16 golden rows differ"),
        (another_weight, "features of 1?[0-9] of 16 golden rows differ"),
        (another_place, "features of 1?[0-9] of 16 golden rows differ"),
        (one_bit, "features of 1 of 16 golden rows differ"),
        (other_logits, "logits of the golden rows are off by up to 0.01"),
    ],
)
def test_a_tampered_golden_log_is_refused(
    golden: Golden, tmp_path: Path, tamper: Callable[[Golden], Golden], said: str
) -> None:
    self_test(LoadedRelease.open(tiny_requests(tmp_path / "true"), TARGET))
    altered = tiny_requests(tmp_path / "altered", golden=goldens.pack(tamper(golden)))
    with pytest.raises(SerinusError, match=said):
        self_test(LoadedRelease.open(altered, TARGET))


def _windows_instead(golden: Golden) -> bytes:
    return goldens.pack(golden._replace(raw=np.zeros((16, 8, 2), np.float32)))


def _unknown_stream(golden: Golden) -> bytes:
    return goldens.pack(with_log(golden, events={"letters": events_of(golden)}))


def _noise(golden: Golden) -> bytes:
    content = io.BytesIO()
    expected = {f"{goldens.EXPECTED}{TARGET}": golden.expected[TARGET]}
    log = np.frombuffer(b"noise", np.uint8)
    np.savez(content, allow_pickle=False, features=golden.features, log=log, **expected)
    return content.getvalue()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_windows_instead, "requests; sensor windows are needed"),
        (_unknown_stream, "unknown stream letters"),
        (_noise, "golden vectors are not readable"),
    ],
)
def test_golden_rows_of_another_shape_are_refused(
    golden: Golden, tmp_path: Path, make: Callable[[Golden], bytes], said: str
) -> None:
    bundle = tiny_requests(tmp_path, golden=make(golden))
    with pytest.raises(SerinusError, match=said):
        self_test(LoadedRelease.open(bundle, TARGET))


def test_a_log_in_a_bundle_of_windows_is_refused(golden: Golden, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, golden=goldens.pack(golden))
    with pytest.raises(InvalidBundle, match="sensor windows; requests are needed"):
        self_test(LoadedRelease.open(bundle, TARGET))


def test_a_release_of_requests_is_tested_tried_and_kept(golden: Golden, tmp_path: Path) -> None:
    with RepositorySimulator(tmp_path / "source") as repository:
        build = {"build": tiny_requests}
        first = repository.publish("1.0.0", **build)
        shadow = repository.publish("1.1.0", seed=1, **build)
        other = define(Keep(entities=8))
        changed = repository.publish("2.0.0", definition=other, **build)
        tampered = goldens.pack(another_weight(golden))
        liar = repository.publish("3.0.0", golden=tampered, **build)

        async def life() -> None:
            async with updating.device(tmp_path / "state", repository) as device:
                device.want(first)
                assert (await device.settled("committed", "failed")).state == "committed"
                assert device.engine.remembering.beginning == "empty"
                device.want(first, shadow=shadow)
                assert (await device.settled("committed", "failed")).state == "committed"
                assert device.engine.shadow is not None
                device.want(first, shadow=changed)
                entry = await device.settled("committed", "failed")
                assert entry.state == "failed"
                assert "nothing is remembered for its features" in entry.reason
                device.want(liar)
                entry = await device.settled("committed", "failed")
                assert entry.state == "failed"
                assert "golden rows differ" in entry.reason
                assert [refusal.release for refusal in entry.refusals] == [changed, liar]
                assert await device.serves() == "1.0.0"
                device.want(shadow)
                entry = await device.settled("committed", "failed")
                assert (entry.state, entry.reason) == ("committed", "")
                assert device.engine.remembering.beginning == "went on"
                device.want(changed)
                assert (await device.settled("committed", "failed")).state == "committed"
                assert device.engine.remembering.beginning == "empty"

        updating.run(life)
