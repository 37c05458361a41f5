"""What a use case refuses; the API gives each a status."""

from edge_core.errors import SerinusError


class NotFound(SerinusError):
    """The named device, release, rollout or verdict is not known."""


class Conflict(SerinusError):
    """The thing is not in a state that allows what was asked."""


class Changed(SerinusError):
    """The thing is not as who asks has seen it."""


class InvalidRequest(SerinusError):
    """What was asked makes no sense, whatever the state."""


class NotAuthenticated(SerinusError):
    """No token, or one that is not known."""


class NotAllowed(SerinusError):
    """The token's role does not allow it."""
