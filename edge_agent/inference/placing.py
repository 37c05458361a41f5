"""Where a model's operators run, beside where its target wants them. Pure."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Placed(NamedTuple):
    """What a runtime made of a model."""

    operators: Mapping[str, int]
    """By execution provider or delegate."""
    wanted: Sequence[str]
    """Providers or delegates that the target asks for; empty where any will do."""
    absent: Sequence[str]
    """Those of them that the runtime does not have."""
    fell_back: int
    """Operators that run elsewhere than wanted."""

    @property
    def complaint(self) -> str:
        """What a person should know about it; empty where all is as wanted."""
        total = sum(self.operators.values())
        if not self.fell_back and not self.absent:
            return ""
        absent = f"; this runtime has no {', '.join(self.absent)}" if self.absent else ""
        return (
            f"{self.fell_back} of {total} operators do not run on {', '.join(self.wanted)}{absent}"
        )


def judged(operators: Mapping[str, int], wanted: Sequence[str], absent: Sequence[str]) -> Placed:
    """Count what runs elsewhere than wanted."""
    fell_back = sum(count for place, count in operators.items() if place not in wanted)
    return Placed(dict(operators), tuple(wanted), tuple(absent), fell_back if wanted else 0)
