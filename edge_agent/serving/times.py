"""How far ahead of this device's clock a time may lie that an application gives.

Time never goes back here, so one that is far ahead would make everything after it old for as long.
"""

import numpy as np
import numpy.typing as npt

from edge_core.errors import InvalidInput

MAX_AHEAD_US = 3600 * 1_000_000


def ahead_us(times_us: npt.ArrayLike | object, now_us: int) -> int:
    """How far the latest of some moments lies beyond what is allowed; 0 where none does.

    What is no array of whole numbers is others' to refuse.
    """
    times = np.asarray(times_us)
    if times.dtype.kind not in "iu" or not times.size:
        return 0
    return max(0, int(times.max()) - now_us - MAX_AHEAD_US)


def refuse_ahead(what: str, times_us: npt.ArrayLike | object, now_us: int) -> None:
    """Raise :class:`InvalidInput` where a time is too far ahead of the clock."""
    beyond = ahead_us(times_us, now_us)
    if beyond:
        raise InvalidInput(
            f"{what} lies {(beyond + MAX_AHEAD_US) / 1e6:.0f} s ahead of this device's clock; "
            f"{MAX_AHEAD_US / 1e6:.0f} s are allowed: set the clock right"
        )
