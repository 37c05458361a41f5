"""Float file in, quantised file out: picks the format's quantiser and the calibration method."""

from collections.abc import Collection, Mapping
from typing import Literal

import msgspec

from converters import calibration, graph, host, parity
from converters.calibration import METHODS, Range, Single, Spread
from converters.model_file import ModelFile, Scheme
from converters.quantisers import Quantiser, open_quantiser
from converters.refusal import StageFailed
from converters.tensors import Array, Feeds, rows_of

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


def quantise(floats: ModelFile, calibration: Feeds, wanted: Wanted) -> ModelFile:
    """Quantise a float file.

    Static int8 measures ranges on the calibration rows. ``auto`` tries every method on three of
    four rows, takes the one with the least numeric error on the rest, and lets it measure all
    rows; the errors of that trial stand in ``settings`` as ``error min/max`` and so on.
    ``int8 weight-only`` and ``fp16`` need no rows.

    Args:
        floats: the float file; where its scaling was cut off, ``scaling`` is set.
        calibration: unscaled rows by input name.
        wanted: how.

    Returns:
        The file; scheme ``mixed`` where ``keep_float`` left layers in float.

    Raises:
        InvalidInput: unfit calibration rows, or a layer to keep that is not there.
        StageFailed: the format or an operator cannot be quantised as wanted.
    """
    opened = open_quantiser(floats)
    kept = graph.kept_steps(floats, opened.steps, wanted.keep_float)
    if wanted.scheme == "float32":
        return made(opened, floats.data, wanted, {})
    if wanted.scheme in ("fp16", "int8 weight-only"):
        data = opened.float16(kept) if wanted.scheme == "fp16" else opened.weight_only(kept)
        return made(opened, data, wanted, {})
    return Static(opened, calibration, wanted).file(kept)


class Static:
    """Static int8 of one file: calibrates once, then quantises as often as asked."""

    def __init__(self, opened: Quantiser, rows: Feeds, wanted: Wanted) -> None:
        """Check and run the calibration rows.

        Raises:
            InvalidInput: they are unfit.
            StageFailed: the format cannot be as wanted.
        """
        floats = opened.floats
        if wanted.io == "int8" and floats.format == "onnx":
            raise StageFailed("ONNX files take float32; ask for io float32, or for TFLite")
        if wanted.io == "int8" and wanted.keep_float:
            raise StageFailed("a target that takes int8 only leaves no layer in float")
        calibration.check_rows(rows, floats.inputs)
        self.opened = opened
        self.wanted = wanted
        self._rows = rows
        self._learned, self.held = calibration.split(rows)
        self._ranges: dict[Single, dict[str, Range]] = {}
        self.expected = host.runner(floats)(self.held)

    def file(self, kept: Collection[str]) -> ModelFile:
        """Quantise all products but ``kept``, by step name, with the method that was wanted."""
        if self.wanted.method != "auto":
            return self.by(self.wanted.method, kept)
        errors = self._compete(kept)
        made = self.by(min(METHODS, key=lambda method: errors[method]), kept)
        told = {f"error {method}": round(error, 6) for method, error in errors.items()}
        return msgspec.structs.replace(
            made, settings={**made.settings, "calibration_choice": "auto", **told}
        )

    def by(self, method: Single, kept: Collection[str]) -> ModelFile:
        """Quantise all products but ``kept`` with ranges by one method."""
        return self.only(method, [name for name in self.opened.products if name not in kept])

    def only(self, method: Single, products: Collection[str]) -> ModelFile:
        """Quantise just these products; with none, the float file comes back."""
        if method not in self._ranges:
            found = self._spreads(self._rows, counted=method != "min/max")
            self._ranges[method] = calibration.ranges(found, method)
        return self._made(method, products, self._ranges[method])

    def _compete(self, kept: Collection[str]) -> dict[Single, float]:
        """Each method's error on held-out rows, with ranges from the other rows."""
        found = self._spreads(self._learned, counted=True)
        products = [name for name in self.opened.products if name not in kept]
        return {
            method: self.error(self._made(method, products, calibration.ranges(found, method)))
            for method in METHODS
        }

    def _spreads(self, rows: Feeds, *, counted: bool) -> dict[str, Spread]:
        scaled = host.scaled(rows, self.opened.floats.scaling)
        return calibration.spreads(self.opened.watch, scaled, counted=counted)

    def _made(
        self, method: Single, products: Collection[str], ranges: Mapping[str, Range]
    ) -> ModelFile:
        data = self.opened.floats.data
        if products or not self.opened.products:
            wanted = self.wanted
            data = self.opened.static(ranges, products, wanted.io, wanted.reduce_range)
        told = {"calibration": method, "calibration_rows": float(rows_of(self._rows))}
        return made(self.opened, data, self.wanted, told)

    def error(self, file: ModelFile) -> float:
        """Numeric error on held-out rows."""
        return largest_error(self.expected, host.runner(file)(self.held))


def largest_error(expected: Mapping[str, Array], answered: Mapping[str, Array]) -> float:
    """The largest numeric error (:func:`converters.parity.numeric_error`) of any output."""
    return max(parity.numeric_error(expected[name], answered[name]) for name in expected)


def made(
    opened: Quantiser, data: bytes, wanted: Wanted, told: Mapping[str, str | float]
) -> ModelFile:
    """The file with its record: scheme, settings, layers that stayed in float."""
    floats = opened.floats
    layers = graph.layers(floats, (step.name for step in opened.steps if step.weights))
    still = opened.float_weights(data)
    in_float = tuple(name for name, parts in layers.items() if still.intersection(parts))
    mixed = bool(wanted.keep_float) and wanted.scheme != "float32"
    scheme: Scheme = "mixed" if mixed else wanted.scheme
    settings: dict[str, str | bool | float] = {"scheme": scheme, "io": wanted.io, **told}
    if wanted.scheme not in ("float32", "fp16"):
        settings["per_channel"] = True
    if wanted.scheme in ("int8 static", "mixed"):
        settings["format"] = opened.label
        settings["reduce_range"] = wanted.reduce_range and floats.format == "onnx"
    return msgspec.structs.replace(
        floats,
        data=one_row(data) if wanted.batch == "one" and floats.format == "onnx" else data,
        scheme=scheme,
        settings=settings,
        float_layers=() if scheme == "float32" else in_float,
    )


def mixed(file: ModelFile) -> ModelFile:
    """The file called ``mixed``: somebody agreed to its layers in float."""
    settings = {**file.settings, "scheme": "mixed"}
    return msgspec.structs.replace(file, scheme="mixed", settings=settings)


def one_row(data: bytes) -> bytes:
    """An ONNX file whose batch is fixed to one row, for compilers that want fixed shapes."""
    import onnx
    from onnxruntime.tools.onnx_model_utils import make_dim_param_fixed

    from converters.export import strip

    proto = onnx.load_model_from_string(data)
    for name in sorted(
        {
            value.type.tensor_type.shape.dim[0].dim_param
            for value in proto.graph.input
            if value.type.tensor_type.shape.dim
        }
        - {""}
    ):
        make_dim_param_fixed(proto.graph, name, 1)
    return strip(proto)
