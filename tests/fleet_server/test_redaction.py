"""Inputs that may not leave the device: they do not, and nothing is blamed for their absence."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_agent.monitor import Monitor
from edge_agent.serving.engine import Engine
from edge_agent.serving.release import LoadedRelease
from edge_core.bundle import manifest as manifests
from edge_core.bundle.manifest import Privacy
from edge_core.errors import InvalidBundle
from edge_core.features import redaction
from edge_core.features.over_samples import Correlation, Mean, Std
from edge_core.features.redaction import Redaction
from edge_core.messages import codec, topics
from edge_core.messages.telemetry import Sample
from fleet_client.views import releases as views
from fleet_server.services.ingest import Inbound
from fleet_server.services.views import ParityView
from fleet_server.storage import journal
from tests.simulators import faulty_features as faulty
from tests.simulators import tiny_bundle as motion
from tests.simulators import tiny_requests as parcels
from tests.simulators.spoken_fleet import SpokenFleet
from tests.simulators.tiny_bundle import TARGET, tiny_bundle, tiny_rows
from tests.simulators.tiny_requests import BEGIN, tiny_requests

NOW = BEGIN + 400 * parcels.SECOND


def without(redacted: list[str], folder: Path, **options: Any) -> Path:
    """A bundle whose manifest redacts these."""
    build = tiny_requests if redacted == ["size"] else tiny_bundle
    return build(folder, privacy=Privacy(redacted=redacted), **options)


def secret_motion(folder: Path, **options: Any) -> Path:
    return without(["ay"], folder, **options)


def secret_parcels(folder: Path, **options: Any) -> Path:
    return without(["size"], folder, **options)


def unknown_input(folder: Path, **options: Any) -> Path:
    return without(["az"], folder, **options)


@pytest.fixture
def published(fleet: SpokenFleet, repository: Any, request: Any) -> LoadedRelease:
    build = request.param
    fleet.approve(repository.publish("1.0.0", build=build))
    return LoadedRelease.open(repository.bundles / build.__name__ / "1.0.0", TARGET)


def sampled(release: LoadedRelease) -> list[Sample]:
    async def live() -> list[Sample]:
        monitor = Monitor(device="d1", sample_every=1, now_ms=0)
        engine = Engine(monitor, slices={}, max_queue_rows=4096, now_us=lambda: NOW)
        engine.set_active(release, "incumbent", None)
        for number in range(4):
            if release.kind == "windows":
                await engine.predict(tiny_rows(1, number)[0])
            else:
                await engine.ask({"at": [NOW], "place": ["p1"], "size": [41.5]})
        await engine.close()
        return monitor.take_samples()

    return asyncio.run(live())


def send(fleet: SpokenFleet, samples: list[Sample]) -> ParityView:
    topic = topics.up("d1", "samples")
    fleet.services.ingest.take([Inbound(topic=topic, payload=codec.encode(s)) for s in samples])
    (view,) = fleet.services.overview.releases()
    return view.parity


def rejections(fleet: SpokenFleet) -> dict[str, str]:
    with fleet.services.database.read() as connection:
        return {r.reason: r.detail for r in journal.rejections(connection, 100)}


@pytest.mark.parametrize("published", [secret_motion], indirect=True)
def test_a_window_carries_no_value_of_a_redacted_input(
    fleet: SpokenFleet, published: LoadedRelease
) -> None:
    samples = sampled(published)
    assert len(samples) == 4
    for sample in samples:
        window = np.frombuffer(sample.window, "<f4").reshape(-1, 2)
        features = np.frombuffer(sample.features, "<f4")
        assert np.isnan(window[:, 1]).all()
        assert not np.isnan(window[:, 0]).any()
        # ax_mean and ax_std are of ax alone, the others of ay.
        assert np.isnan(features).tolist() == [False, False, True, True]
    parity = send(fleet, samples)
    assert (parity.compared, parity.mismatches, parity.not_possible) == (4, 0, 0)
    assert parity.redacted == ["ay_mean", "ay_std"]
    assert rejections(fleet) == {}


@pytest.mark.parametrize("published", [secret_motion], indirect=True)
def test_what_is_left_is_still_compared(fleet: SpokenFleet, published: LoadedRelease) -> None:
    published._windows = faulty.FloatMeans(published.evaluator.definition)
    parity = send(fleet, sampled(published))
    assert parity.mismatches > 0
    assert set(parity.features) == {"ax_mean"}


@pytest.mark.parametrize("published", [secret_motion], indirect=True)
@pytest.mark.parametrize("field", ["window", "features"])
def test_a_device_that_tells_all_the_same_is_not_heard(
    fleet: SpokenFleet, published: LoadedRelease, field: str
) -> None:
    (sample, *_) = sampled(published)
    told = np.nan_to_num(np.frombuffer(getattr(sample, field), "<f4"), nan=0.5)
    open_ = msgspec.structs.replace(sample, **{field: told.astype("<f4").tobytes()})
    assert send(fleet, [open_]).compared == 0
    assert rejections(fleet) == {"redacted values": "tiny-motion@1.0.0 keeps ay"}


@pytest.mark.parametrize("published", [secret_parcels], indirect=True)
def test_a_request_is_kept_back_whole_and_counted_as_not_comparable(
    fleet: SpokenFleet, published: LoadedRelease
) -> None:
    samples = sampled(published)
    assert [(s.request, s.memory) for s in samples] == [(b"", b"")] * 4
    features = np.frombuffer(samples[0].features, "<f4")
    names = published.definition.feature_names
    assert [n for n, v in zip(names, features, strict=True) if np.isnan(v)] == ["heft"]
    parity = send(fleet, samples + samples)
    assert (parity.compared, parity.mismatches, parity.not_possible) == (0, 0, 4)
    assert parity.redacted == ["heft"]
    assert views.parity(msgspec.to_builtins(parity)).plain == "4 kept back"
    told = msgspec.structs.replace(samples[0], prediction_id="other", request=b"all of it")
    send(fleet, [told])
    assert rejections(fleet) == {"redacted values": "the request came along"}


def test_a_release_that_redacts_what_is_not_there_is_refused(
    fleet: SpokenFleet, repository: Any
) -> None:
    fleet.approve(repository.publish("1.0.0", build=unknown_input))
    assert fleet.services.overview.releases() == []
    (alert,) = fleet.alerts("repository")
    assert "privacy redacts az; the features are of ax, ay" in alert
    with pytest.raises(InvalidBundle, match="redacts az"):
        LoadedRelease.open(repository.bundles / "unknown_input" / "1.0.0", TARGET)


@pytest.mark.parametrize(
    ("redacted", "hidden"),
    [
        ([], []),
        (["size"], ["heft"]),
        (["place"], ["count", "weight_sum", "weight_mean", "since"]),
        (["parcels.weight"], ["weight_sum", "weight_mean"]),
        (["parcels.kind"], ["kinds"]),
        (["at"], ["count", "weight_sum", "weight_mean", "since", "kinds", "hour"]),
    ],
)
def test_features_of_requests_depend_on_what_they_read(
    redacted: list[str], hidden: list[str]
) -> None:
    names = parcels.DEFINITION.feature_names
    assert [names[place] for place in redaction.hidden(parcels.DEFINITION, redacted)] == hidden


def test_features_of_windows_depend_on_their_channels() -> None:
    both = Correlation(name="both", input="ax", other="ay", default=0.0)
    features = [Mean(name="m", input="ax"), both, Std(name="s", input="ay")]
    definition = msgspec.structs.replace(motion.DEFINITION, features=features)
    assert redaction.hidden(definition, ["ax"]) == [0, 1]
    assert redaction.hidden(definition, ["ay"]) == [1, 2]
    assert Redaction(definition, []).window(np.ones((8, 2), np.float32)).all()


@pytest.mark.parametrize(
    ("privacy", "words"),
    [
        ({"epsilon": 0.0}, "Expected `float` >= 0.01"),
        ({"epsilon": 101.0}, "<= 100"),
        ({"redacted": ["ax", "ax"]}, "names an input twice"),
        ({"sigma": 1}, "unknown field"),
    ],
)
def test_privacy_out_of_range_is_refused(
    tmp_path: Path, privacy: dict[str, Any], words: str
) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    document = msgspec.json.decode((bundle / manifests.MANIFEST).read_bytes())
    with pytest.raises(InvalidBundle, match=words):
        manifests.parse(msgspec.json.encode(document | {"privacy": privacy}))
