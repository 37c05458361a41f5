"""Which devices are held out of a model's rollouts, and so stay on its baseline policy."""

import sqlalchemy as sa

from fleet_server.domain.labelling import Policy
from fleet_server.storage import rollouts


def policy_of(connection: sa.Connection, model: str, device: str) -> Policy:
    """Whether a device follows its model's rollouts or is held out of them."""
    return "holdout" if rollouts.holds_out(connection, model, device) else "policy"
