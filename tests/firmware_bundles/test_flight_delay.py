"""Late flights: an average that holds the current row is named, one that ends before it is not."""

import dataclasses
import importlib.util
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from converters import fallback, gates, leakage, metrics, recipe, recipe_code, training
from converters.data import cutting
from converters.data.dataset import Snapshot
from converters.leakage import Sign
from edge_core.features import columns
from edge_core.features.definition import of_requests
from edge_core.features.request_evaluation import RequestEvaluator

FOLDER = Path("firmware_bundles/flight_delay")
DAYS_US = 86_400_000_000
FIELD = '    { dtype = "category", name = "flight_day" },\n'
NUMBER = (
    '    { dtype = "number", name = "told_30d", unit = "1", lsb = 0.0009765625, low = 0.0, '
    "high = 1.0 },\n"
)
HONEST = """
[[features]]
op = "mean"
name = "late_30d"
stream = "arrivals"
by = { flight_day = "flight_day" }
field = "late"
within_s = 2592000.0
default = 0.2
"""
LEAKING = """
[[features]]
op = "field"
name = "late_30d"
input = "told_30d"
"""
DATA = '''
def keyed(table):
    """Flight number and weekday of each flight."""
    days = (scheduled_us(table) // 86_400_000_000 + 3) % 7
    parts = zip(table["carrier"].to_pylist(), table["flight"].to_pylist(), days, strict=True)
    return [f"{carrier}{flight}-{day}" for carrier, flight, day in parts]


def log(settings):
    """The log, with the key of each flight, and its average over 30 days up to itself."""
    table = flights()
    made = plain(settings)
    key = np.array(keyed(table))
    events = {}
    for name, given in made.log.events.items():
        there = np.asarray(given.sequence)
        events[name] = given._replace(fields=given.fields | {"flight_day": key[there].tolist()})
    if settings["early"]:
        given = events["arrivals"]
        due = scheduled_us(table)[np.asarray(given.sequence)] - MINUTE_US
        events["arrivals"] = given._replace(times_us=due, arrived_us=due)
    request = made.log.request | {"flight_day": key.tolist()}
    if settings["leaking"]:
        request["told_30d"] = with_itself(scheduled_us(table), key, numbers(table, "arr_delay"))
    return dataclasses.replace(made, log=Log(events, request))


def with_itself(times, key, delay):
    """Share of late flights within the last 30 days, the current one included."""
    late = np.where(np.isnan(delay), 0.0, delay > LATE_MINUTES)
    found = np.empty(len(times), np.float32)
    order = np.lexsort((times, key))
    start = 0
    for place in range(len(order)):
        now = order[place]
        first = times[now] - 30 * 86_400_000_000
        while key[order[start]] != key[now] or times[order[start]] < first:
            start += 1
        found[now] = late[order[start : place + 1]].mean()
    return found
'''


def variant(folder: Path, *, leaking: bool = False, early: bool = False) -> Path:
    """The recipe with one more feature: lateness of this flight on this weekday in 30 days.

    Args:
        folder: for the recipe.
        leaking: the log's own average, with the current flight in it.
        early: arrivals are logged under the time at which their flight was due to leave.
    """
    shutil.copytree(FOLDER, folder)
    text = (folder / "features.toml").read_text()
    text = text.replace(
        '    { dtype = "number", name = "distance"',
        f'{FIELD}    {{ dtype = "number", name = "distance"',
        1,
    )
    stream = '    { dtype = "number", name = "delay"'
    text = text.replace(stream, f"{FIELD}{stream}")
    if leaking:
        head, rest = text.split("]\n\n[[streams]]", 1)
        text = f"{head}{NUMBER}]\n\n[[streams]]{rest}"
    text = text.replace("entities = 1024, events = 49152", "entities = 16384, events = 65536")
    text = text.replace("memory_bytes = 67108864", "memory_bytes = 268435456")
    (folder / "features.toml").write_text(text + (LEAKING if leaking else HONEST))
    data = (folder / "data.py").read_text().replace("def log(", "def plain(")
    (folder / "data.py").write_text("import dataclasses\n" + data.split('"""', 2)[2] + DATA)
    (folder / "recipe.toml").write_text(
        (folder / "recipe.toml").read_text()
        + f"leaking = {str(leaking).lower()}\nearly = {str(early).lower()}\n"
    )
    return folder


@dataclasses.dataclass(frozen=True)
class Case:
    """A recipe's rows and a network that was trained on them."""

    snapshot: Snapshot
    answer: leakage.Answer
    signs: dict[str, Sign]
    chosen: recipe.Recipe

    def score(self) -> float:
        test = self.snapshot.rows["test"]
        return metrics.roc_auc(self.answer(test.features), test.labels)


def opened(folder: Path) -> Case:
    import torch

    chosen = recipe.load(folder, "1.1.0")
    snapshot = cutting.Cut().run(cutting.ToCut(folder=folder, recipe=chosen))
    network = training.train(chosen, recipe_code.load(folder, chosen.entry), snapshot).network

    def answer(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            found: npt.NDArray[np.float32] = network(torch.from_numpy(rows)).numpy()
        return found

    signs = {sign.gate: sign for sign in leakage.signs(snapshot, answer)}
    return Case(snapshot, answer, signs, chosen)


@pytest.fixture(scope="module")
def plain() -> Case:
    return opened(FOLDER)


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return opened(variant(tmp_path_factory.mktemp("leaking") / "flight_delay", leaking=True))


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return opened(variant(tmp_path_factory.mktemp("honest") / "flight_delay"))


@pytest.fixture(scope="module")
def early(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return opened(variant(tmp_path_factory.mktemp("early") / "flight_delay", early=True))


def failed(case: Case) -> list[str]:
    results = gates.judge_leakage(case.chosen, list(case.signs.values()))
    return [result.gate for result in results if result.outcome == "failed"]


def test_the_recipe_shows_no_sign_of_leakage_and_beats_its_seasons(plain: Case) -> None:
    assert failed(plain) == []
    assert plain.score() > 0.77
    train = plain.snapshot.rows["train"]
    season = fallback.fit(plain.snapshot.definition, train, 2, plain.chosen.fallback)
    test = plain.snapshot.rows["test"]
    logits = season.logits(test.features, plain.snapshot.definition.feature_names)
    assert 0.6 < metrics.roc_auc(logits, test.labels) < plain.score() - 0.05


def test_an_average_with_the_current_row_dazzles_and_is_named(leaking: Case, honest: Case) -> None:
    assert leaking.score() > 0.9
    assert failed(leaking) == ["label_derived"]
    assert leaking.signs["label_derived"].detail.startswith("late_30d ")
    # A device knows the average before the flight, not with it: what the model is worth there.
    names = leaking.snapshot.definition.feature_names
    served, test = leaking.snapshot.rows["test"].features.copy(), leaking.snapshot.rows["test"]
    before = honest.snapshot.rows["test"].features
    column = honest.snapshot.definition.feature_names.index("late_30d")
    served[:, names.index("late_30d")] = before[:, column]
    assert metrics.roc_auc(leaking.answer(served), test.labels) < leaking.score() - 0.15


def test_events_that_are_logged_too_early_show_when_all_are_made_one_older(early: Case) -> None:
    assert early.score() > 0.85
    assert "one_event_older" in failed(early)
    assert early.signs["one_event_older"].detail.startswith("late_30d ")


def test_the_same_average_that_ends_before_the_row_is_honest(plain: Case, honest: Case) -> None:
    assert failed(honest) == []
    assert abs(honest.score() - plain.score()) < 0.02


def test_the_model_decays_by_autumn(plain: Case) -> None:
    log = plain.snapshot.log
    assert log is not None
    definition = of_requests(plain.snapshot.definition)
    times = np.asarray(log.request["at"])
    known = np.flatnonzero(~np.isnan(delays()))
    request = columns.taken(log.request, known)
    features = RequestEvaluator(definition).replay(log.events, request)
    late = (delays()[known] > 15).astype(np.int64)
    months = times[known].astype("datetime64[us]").astype("datetime64[M]")

    def score(month: str) -> float:
        rows = months == np.datetime64(month)
        return metrics.roc_auc(plain.answer(features[rows]), late[rows])

    assert score("2013-05") - score("2013-10") > 0.04


def delays() -> npt.NDArray[np.float32]:
    spec = importlib.util.spec_from_file_location("flight_data", FOLDER / "data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: npt.NDArray[np.float32] = module.numbers(module.flights(), "arr_delay")
    return found
