"""The error tree of Serinus.

A class exists because some caller acts differently on it. Messages are one line, name the
thing, and say what to do. Bugs stay ``ValueError``, ``TypeError`` and ``AssertionError``.
"""

MAX_QUOTED = 300
"""Characters that a refusal repeats of what another program said about foreign bytes."""


class SerinusError(Exception):
    """Everything that Serinus refuses on purpose; its text is meant for a person."""


class InvalidConfiguration(SerinusError):
    """A settings file or option is missing, unknown or out of range."""


class InvalidInput(SerinusError):
    """An application sent rows that the feature definition does not accept."""


class InvalidMessage(SerinusError):
    """A message or frame is malformed, too large or of an unknown version."""


class InvalidBundle(SerinusError):
    """Bundle bytes are truncated, oversized, malformed or disagree with the manifest."""


class UntrustedBundle(SerinusError):
    """A signature is missing, wrong, expired or made by a key that is not trusted."""


class ReleaseNotApproved(SerinusError):
    """The release repository does not list this release for this digest."""


class Unavailable(SerinusError):
    """A network peer, file or tool cannot be reached now; trying again may help."""


class Overloaded(SerinusError):
    """A bounded queue is full; the caller should slow down."""


class DeadlineExceeded(SerinusError):
    """The answer would have come after the caller's deadline, so it was not computed."""


def quoted(error: BaseException) -> str:
    """The text of an error that may repeat foreign bytes: short, and one printable line."""
    text = str(error)[:MAX_QUOTED]
    return "".join(character if character.isprintable() else "?" for character in text)
