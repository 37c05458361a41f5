"""The converter's own refusals, told apart by exit code."""

from edge_core.errors import SerinusError


class WrongUse(SerinusError):
    """An option makes no sense; nothing was read yet."""

    exit_code = 1


class StageFailed(SerinusError):
    """A stage's condition does not hold, or a tool in it failed; nothing is shipped."""

    exit_code = 2


class RefusedByGate(SerinusError):
    """A release failed a gate, or has no evidence for it, and nobody waived that."""

    exit_code = 3


class OtherData(SerinusError):
    """The data is not what a manifest names; nothing was trained on it."""

    exit_code = 3


class ChainBroken(SerinusError):
    """A link of the chain behind a bundle does not fit the others; it is named."""

    exit_code = 1


class ChainIncomplete(SerinusError):
    """No link is broken, and not all of the chain is known; what would tell is said."""

    exit_code = 3


class Stopped(SerinusError):
    """A person stopped a run that can go on."""

    exit_code = 130


class CeremonyRefused(SerinusError):
    """Signatures are missing, foreign or for something else; the repository stays as it was."""

    exit_code = 3
