"""What every harness offers: good inputs, a way to feed bad ones, and a check that all is well."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from tests.fuzz.forms import Form
from tests.fuzz.mutator import Case


class Surface(ABC):
    """One place where foreign bytes come in. Opened by its constructor, below an empty folder."""

    name: ClassVar[str]
    forms: ClassVar[Sequence[Form]]
    """Of the parts of each input."""
    short: ClassVar[int] = 160
    """Inputs of the short run."""
    seeds: Sequence[Case]
    """Good inputs; each of them is accepted."""

    @abstractmethod
    def __init__(self, folder: Path) -> None: ...

    @abstractmethod
    def feed(self, case: Case) -> int:
        """Offer an input; how many refusals it met. A ``SerinusError`` is one, too."""

    @abstractmethod
    def check(self) -> None:
        """Assert that a good input is answered as before."""

    def counted(self) -> int | None:
        """Refusals that the program counted so far; none where it keeps no count."""
        return None

    def close(self) -> None:  # noqa: B027  # most hold nothing
        """Let go of everything."""
