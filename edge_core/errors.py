"""The error tree of Serinus.

A class exists because some caller acts differently on it. Messages are one line, name the
thing, and say what to do. Bugs stay ``ValueError``, ``TypeError`` and ``AssertionError``.
"""

MAX_QUOTED = 300
"""Characters that a refusal repeats of what another program said about foreign bytes."""


MAX_TEXT = 2000
"""Characters of an error's text; what is longer repeats foreign bytes."""


class SerinusError(Exception):
    """Everything that Serinus refuses on purpose; its text is meant for a person.

    The text is one printable line, whatever foreign names and values it repeats: it goes to
    terminals, logs and other programs.
    """

    def __str__(self) -> str:
        text = super().__str__()
        return printable(text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 4]} ...")


class InvalidConfiguration(SerinusError):
    """A settings file or option is missing, unknown or out of range."""


class InvalidInput(SerinusError):
    """An application sent rows that the feature definition does not accept."""


class UnknownModel(SerinusError):
    """The device serves no model, or no version of it, of the name that was asked for."""


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


class NoDisk(Unavailable):
    """This device's disk is full, fails, or may not be used for more; nobody else is at fault."""


class Overloaded(SerinusError):
    """A bounded queue is full; the caller should slow down."""


class DeadlineExceeded(SerinusError):
    """The answer would have come after the caller's deadline, so it was not computed."""


def quoted(error: BaseException) -> str:
    """The text of an error that may repeat foreign bytes: short, and one printable line."""
    return printable(str(error)[:MAX_QUOTED])


def printable(text: str) -> str:
    """The text in one line, without what a terminal or log would not show as it is."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text)
