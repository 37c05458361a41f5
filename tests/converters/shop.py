"""A small recipe of requests: whether a shop's next sale is dear. Its builds take seconds."""

from pathlib import Path

from edge_core.features import definition as definitions
from edge_core.features.over_rows import Field
from edge_core.features.over_time import MeanWithin
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.requests import Category, Number, Request, Stream, Time

DEFINITION = RequestDefinition(
    request=Request(
        fields=[
            Time(name="at"),
            Category(name="shop"),
            Number(name="amount", unit="EUR", lsb=0.01, low=0, high=1000),
        ],
        time="at",
    ),
    streams=(
        Stream(
            name="sales",
            fields=[
                Category(name="shop"),
                Number(name="price", unit="EUR", lsb=0.01, low=0, high=1000),
            ],
        ),
    ),
    features=(
        Field(name="paid", input="amount"),
        MeanWithin(
            name="price_1h",
            stream="sales",
            by={"shop": "shop"},
            field="price",
            within_s=3600,
            default=50.0,
        ),
    ),
)
DATA = '''
"""Made-up sales; SHOP_SEED draws others."""

import os

import numpy as np

from converters.data.dataset import LabelledLog
from edge_core.features.logs import Events, Log

HOUR_US = 3_600_000_000
START_US = 1_700_000_000_000_000


def log(settings):
    draw = np.random.default_rng(int(os.environ.get("SHOP_SEED", "1")))
    count = 1200
    at = START_US + np.arange(count) * HOUR_US // 6
    amount = draw.uniform(0, 100, count).astype(np.float32)
    shop = draw.choice(["north", "south"], count).tolist()
    times = at - HOUR_US // 12
    price = draw.uniform(0, 100, count).astype(np.float32)
    sales = Events(times, np.arange(count), times, {"shop": shop, "price": price})
    dear = amount + price + draw.normal(0, 30, count) > 100
    roles = np.repeat(["train", "calibration", "test", "golden", None], [600, 200, 300, 80, 20])
    label = os.environ.get("SHOP_LABEL", "dear")
    return LabelledLog(
        log=Log({"sales": sales}, {"at": at, "shop": shop, "amount": amount}),
        labels=np.where(dear, label, "cheap").tolist(),
        roles=roles.tolist(),
        slices={"shop": shop},
    )
'''
NETWORK = '''
"""Logistic regression."""

from converters import perceptron


def network(definition, classes, settings):
    return perceptron.untrained(len(definition.feature_names), classes, settings)


def train(module, rows, evaluator, settings, seed):
    perceptron.fit(module, rows, settings, seed)
'''
RECIPE = """
model = "shop"
features = "features.json"
targets = ["cpu-x86_64-ort"]
seed = 3
metrics = ["roc_auc"]
entry = { log = "data:log", network = "network:network", train = "network:train" }
data = { name = "sales", source = "a seeded generator" }
output = { classes = ["cheap", "dear"], meaning = "whether the next sale is dear" }
slices = { shop = ["north", "south"] }
budget = { latency_us = 1e9, memory_bytes = 83886080, size_bytes = 262144 }
fallback = { features = ["paid"] }
gates = { numeric_error = 0.5, top1_agreement = 0.8, metric_drop = 0.2, metric_drop_slice = 0.2, \
label_derived = 1.0, one_event_older = 1.0, random_split = 1.0, single_feature = 0.0, \
below_baseline = 0.5 }
settings = { hidden = 0, dropout = 0.0, noise = 0.0, epochs = 30 }
"""


def recipe(folder: Path) -> Path:
    """Write the recipe into a new folder."""
    (folder / "releases").mkdir(parents=True)
    (folder / "features.json").write_bytes(definitions.serialize(DEFINITION))
    (folder / "data.py").write_text(DATA)
    (folder / "network.py").write_text(NETWORK)
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "releases" / "1.0.0.toml").write_text('description = "The only one."\n')
    return folder
