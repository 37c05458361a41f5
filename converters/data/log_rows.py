"""The rows of a build from a log of events and labelled requests."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from converters.data.dataset import (
    ROLES,
    LabelledLog,
    Role,
    Rows,
    Snapshot,
    check_roles,
)
from edge_core.errors import InvalidInput
from edge_core.features import columns, logs
from edge_core.features.logs import Events, Log
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator

GOLDEN_REQUESTS = 64
GOLDEN_EVENTS = 2000
"""Of each stream, the newest before the last golden request."""


def cut(
    definition: RequestDefinition,
    classes: Sequence[str],
    slices: Mapping[str, Sequence[str]],
    offered: LabelledLog,
) -> Snapshot:
    """Compute the features of a log's requests.

    Raises:
        InvalidInput: unknown label or slice value, a log that the definition refuses, or a role
            without rows.
    """
    check(offered, classes, slices)
    features = RequestEvaluator(definition).replay(*offered.log)
    samples = logs.numbers(definition, offered.log.request)
    times = np.asarray(offered.log.request[definition.request.time], np.int64)
    numbers = {name: place for place, name in enumerate(classes)}
    labels = np.array([numbers.get(label, -1) for label in offered.labels], np.int64)
    roles = np.array([role or "" for role in offered.roles])
    values = {name: np.array(offered.slices[name], np.object_) for name in slices}

    def of(role: Role) -> Rows:
        places = np.flatnonzero(roles == role)
        places = places[np.argsort(times[places], kind="stable")]
        return Rows(
            samples=samples[places],
            features=features[places],
            labels=labels[places],
            slices={name: tuple(found[places].tolist()) for name, found in values.items()},
            entities=(),
            times_us=times[places],
            places=places,
        )

    rows = {role: of(role) for role in ROLES}
    check_roles(rows)
    golden, golden_log = _golden(definition, offered.log, rows["golden"])
    return Snapshot(
        definition=definition,
        classes=tuple(classes),
        rows=rows | {"golden": golden},
        log=offered.log,
        golden_log=golden_log,
    )


def _golden(definition: RequestDefinition, log: Log, rows: Rows) -> tuple[Rows, Log]:
    """A spread of golden requests, from a log so short that a bundle can carry it.

    The first of them come before all events that are carried: they show what is missing.
    """
    rows = rows.only(np.unique(np.linspace(0, len(rows) - 1, GOLDEN_REQUESTS).astype(int)))
    until = int(rows.times_us[-1])
    events = {name: _newest(given, until) for name, given in log.events.items()}
    short = Log(events, columns.taken(log.request, rows.places))
    features = RequestEvaluator(definition).replay(*short)
    samples = logs.numbers(definition, short.request)
    return Rows(
        samples=samples,
        features=features,
        labels=rows.labels,
        slices=rows.slices,
        entities=(),
        times_us=rows.times_us,
        places=rows.places,
    ), short


def _newest(events: Events, until_us: int) -> Events:
    arrived = np.asarray(events.arrived_us, np.int64)
    places = np.argsort(arrived, kind="stable")
    places = places[: int(np.searchsorted(arrived[places], until_us, "right"))][-GOLDEN_EVENTS:]
    return events.only(places)


def check(
    offered: LabelledLog, classes: Sequence[str], slices: Mapping[str, Sequence[str]]
) -> None:
    """Refuse unknown roles, and labels and slice values that are unknown where there is a role.

    Raises:
        InvalidInput: names one of them and what is known.
    """
    count = len(offered.labels)
    lengths = {len(column) for column in offered.slices.values()} | {len(offered.roles)}
    lengths |= {np.asarray(column, np.object_).size for column in offered.log.request.values()}
    if lengths != {count}:
        raise InvalidInput(
            f"the log has {count} labels, and other numbers of requests, roles or slice values"
        )
    if strange := set(offered.roles) - {*ROLES, None}:
        raise InvalidInput(f"unknown role {min(map(str, strange))!r}; known are {', '.join(ROLES)}")
    used = [role is not None for role in offered.roles]
    if unknown := set(itertools.compress(offered.labels, used)) - set(classes):
        raise InvalidInput(
            f"label {min(map(str, unknown))!r} is not a class; add it to output.classes or give "
            "its requests no role"
        )
    for name, declared in slices.items():
        values = offered.slices.get(name, [""] * count)
        if odd := set(itertools.compress(values, used)) - set(declared):
            raise InvalidInput(
                f"slice {name} is {min(map(str, odd))!r}; declared values are {', '.join(declared)}"
            )
