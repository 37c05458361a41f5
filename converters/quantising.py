"""Float file in, quantised file out: picks the format's quantiser and the calibration method."""

from typing import Literal

import msgspec

from converters.model_file import Scheme

Method = Literal["min/max", "percentile", "entropy", "auto"]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """How a file shall be quantised; what targets with equal wishes share."""

    scheme: Scheme
    method: Method = "auto"
    reduce_range: bool = False
    io: Literal["float32", "int8"] = "float32"
    batch: Literal["dynamic", "one"] = "dynamic"
    keep_float: tuple[str, ...] = ()
    """Layers of the float file that stay in float."""
