"""A rollout's plan as a file."""

import json
from pathlib import Path

from edge_core.errors import InvalidConfiguration
from fleet_client.client import Json


def read_plan(file: Path | None) -> Json | None:
    """What differs from the default plan; raise :class:`InvalidConfiguration`."""
    if file is None:
        return None
    try:
        plan = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfiguration(f"cannot read the plan {file}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidConfiguration(f"the plan {file} is not valid JSON: {error}") from error
    if not isinstance(plan, dict):
        raise InvalidConfiguration(f"the plan {file} has to be a JSON object")
    return plan
