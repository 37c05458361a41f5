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


LEAST_ROWS = 32


def quantise(floats, calibration, wanted):
    import msgspec.structs as ms

    from converters import onnx_int8, tflite_int8
    from converters.targets import int8_io

    cal = {k: int8_io.scaled(v, floats.scaling) for k, v in calibration.items()}
    if wanted.scheme == "float32":
        return ms.replace(floats, settings={"scheme": "float32"})
    made = (onnx_int8 if floats.format == "onnx" else tflite_int8).temp(floats, cal, wanted)
    return ms.replace(
        floats,
        data=made,
        scheme="int8 static",
        settings={"scheme": "int8 static", "calibration": "min/max"},
    )
