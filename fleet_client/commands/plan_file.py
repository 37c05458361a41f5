"""A rollout's plan as a file: TOML or JSON."""

import json
import tomllib
from pathlib import Path
from typing import Any

from edge_core.errors import InvalidConfiguration
from fleet_client.client import Json

EXPLAINED = {
    "strata": "slices of devices within which cohorts are drawn",
    "group": "a group's name or a query; empty: every device that the release fits",
    "holdout": "share of devices that stay on the incumbent, after the end as well",
    "disruption": "at most so many devices of one site changing at once",
    "maintenance": "times of the week in which devices may be given a new release",
    "attempts": "how often a failing device is asked before it counts as failed",
    "retry_seconds": "wait before the second attempt; twice as long before each further one",
    "promotion_approvals": "people who have to approve before the whole fleet follows",
    "delta": "accuracy that the candidate may lose before it counts as worse",
    "alpha": "chance of a wrong verdict, however often one looks",
    "max_lost_share": "share of candidate devices that may refuse or fall silent",
    "device_timeout_seconds": "silence after which a device counts as lost; longer than a window",
    "deadline_seconds": "time in one stage after which a person is asked",
    "min_slice_rows": "labelled rows that each slice has to show",
}


def read_plan(file: Path | None) -> Json | None:
    """What differs from the default plan; raise :class:`InvalidConfiguration`."""
    if file is None:
        return None
    try:
        text = file.read_text(encoding="utf-8")
        plan = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise InvalidConfiguration(f"cannot read the plan {file}: {error.strerror}") from error
    except ValueError as error:
        kind = "TOML" if file.suffix == ".toml" else "JSON"
        raise InvalidConfiguration(f"the plan {file} is not valid {kind}: {error}") from error
    if not isinstance(plan, dict):
        raise InvalidConfiguration(f"the plan {file} has to be a JSON object")
    return plan


def as_toml(plan: Json) -> str:
    """A plan as TOML with a word on each setting; what is none is left out."""
    flat = {name: value for name, value in plan.items() if not _nested(value)}
    lines = [line for name, value in flat.items() for line in _line(name, value)]
    for stage in plan["stages"]:
        lines += ["", "[[stages]]", *(_pair(name, value) for name, value in stage.items())]
    lines += [
        "", "# [disruption]", '# per = "site"', "# share = 0.25",
        "", "# [[maintenance]]", '# days = ["mon", "tue", "wed", "thu"]', '# begin = "22:00"',
        '# end = "05:00"', '# zone = "Europe/Berlin"', '# site = "berlin"',
    ]  # fmt: skip
    for name, metric in plan["metrics"].items():
        lines += _metric(name, metric)
    return "\n".join(line for line in lines if line is not None) + "\n"


def _metric(name: str, metric: Json) -> list[str]:
    told = [_pair(key, value) for key, value in metric.items() if value is not None]
    return ["", f"[metrics.{name}]", *told] if told else []


def _line(name: str, value: Any) -> list[str]:
    if value is None or name == "maintenance":
        return []
    known = EXPLAINED.get(name)
    return [*([f"# {known}"] if known else []), _pair(name, value)]


def _pair(name: str, value: Any) -> str:
    return f"# {name} =" if value is None else f"{name} = {json.dumps(value)}"


def _nested(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(entry, dict) for entry in value)
    )
