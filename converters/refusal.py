"""The converter's own refusal, kept apart from bad input by its exit code."""

from edge_core.errors import SerinusError


class RefusedByGate(SerinusError):
    """A release failed a gate, or has no evidence for it, and nobody waived that."""

    exit_code = 3
