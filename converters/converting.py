"""The stages from a float model to a target's file: export, quantise, compile, try.

Each depends on its input alone, so builds and processes side by side share what one of them made.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import msgspec
import numpy as np

from converters import quantising, sensitivity, tensors
from converters.calibration import LEAST_ROWS
from converters.floating import FloatModel
from converters.model_file import ModelFile
from converters.product import Plain
from converters.quantising import Wanted
from converters.refusal import StageFailed
from converters.source import Source
from converters.stage import StoredStage
from converters.targets import file_ends, int8_io
from converters.targets.target import Compiled, Estimate, Placement, Ran, Target
from converters.tensors import Array, Feeds
from edge_core.bundle.manifest import InputScaling
from edge_core.errors import InvalidInput

Float = Literal["onnx", "tflite", "tflite without scaling"]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A source whose model is made once, when the first stage needs it."""

    source: Source

    @cached_property
    def floating(self) -> FloatModel:
        """The model; imports torch."""
        return self.source.load()

    def digest(self) -> str:
        """That of the source."""
        return self.source.digest()


class Answers(Plain, frozen=True, kw_only=True):
    """Outputs by name, packed."""

    data: bytes

    @property
    def feeds(self) -> dict[str, Array]:
        """Outputs by name, [rows, ...] each."""
        return tensors.unpack(self.data)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A model and rows for it."""

    model: Model
    feeds: Feeds

    def digest(self) -> str:
        """Of both."""
        return _joined(self.model.digest(), tensors.digest(self.feeds))


class AnswerInFloat(StoredStage[Asked, Answers]):
    """The reference: what torch answers in float32."""

    name = "answer in float32"

    def requires(self, given: Asked) -> None:
        """Rows have to fit the model."""
        tensors.check(given.feeds, given.model.floating.inputs, least_rows=1, what="the data")

    def run(self, given: Asked) -> Answers:
        """Run the torch module."""
        return Answers(data=tensors.pack(given.model.floating.run(given.feeds)))

    def ensures(self, given: Asked, made: Answers) -> None:
        """Answers have to be finite: all evidence is measured against them."""
        tensors.check(
            made.feeds,
            given.model.floating.outputs,
            least_rows=1,
            what="the float32 answer",
        )

    def pack(self, made: Answers) -> bytes:
        """See :class:`StoredStage`."""
        return made.pack()

    def unpack(self, data: bytes) -> Answers:
        """See :class:`StoredStage`."""
        return Answers.unpack(data)


class Export(StoredStage[Asked, ModelFile]):
    """The float file, checked to answer as torch does on the rows given."""

    def __init__(self, form: Float) -> None:
        self.form = form
        self.name = f"export to {form}"  # type: ignore[misc]  # one name for each form

    def requires(self, given: Asked) -> None:
        """Rows have to fit the model."""
        tensors.check(given.feeds, given.model.floating.inputs, least_rows=1, what="the data")

    def run(self, given: Asked) -> ModelFile:
        """Export by the format's own tool."""
        from converters import export

        floating = given.model.floating
        if self.form == "onnx":
            return export.to_onnx(floating)
        if self.form == "tflite" or floating.scaling is None:
            return export.to_tflite(floating)
        file = export.to_tflite(floating.without_scaling())
        return msgspec.structs.replace(file, scaling=scaling_of(floating))

    def ensures(self, given: Asked, made: ModelFile) -> None:
        """The file has to answer as torch does."""
        from converters import agreement

        model, rows = given.model.floating, dict(given.feeds)
        if made.scaling is not None:  # the file takes scaled rows
            model = model.without_scaling()
            rows = {name: int8_io.scaled(row, made.scaling) for name, row in rows.items()}
            made = msgspec.structs.replace(made, scaling=None)
        agreement.check_same(model, made, rows)

    def pack(self, made: ModelFile) -> bytes:
        """See :class:`StoredStage`."""
        return made.pack()

    def unpack(self, data: bytes) -> ModelFile:
        """See :class:`StoredStage`."""
        return ModelFile.unpack(data)


@dataclass(frozen=True, kw_only=True)
class ToQuantise:
    """A float file, rows to calibrate it with, and what is wanted."""

    file: ModelFile
    calibration: Feeds
    wanted: Wanted
    limit: float
    """Numeric error that ``mixed`` has to come below; 0 where it is not asked for."""

    def digest(self) -> str:
        """Of all."""
        return _joined(
            self.file.digest(),
            tensors.digest(self.calibration),
            repr(self.wanted),
            repr(self.limit),
        )


class Quantise(StoredStage[ToQuantise, ModelFile]):
    """The quantised file."""

    name = "quantise"

    def requires(self, given: ToQuantise) -> None:
        """Calibration rows have to fit the model."""
        tensors.check(
            given.calibration,
            given.file.inputs,
            least_rows=LEAST_ROWS,
            what="the calibration data",
        )

    def run(self, given: ToQuantise) -> ModelFile:
        """Quantise all layers; where ``mixed`` is asked for and they miss the limit, fewer."""
        made = quantising.quantise(given.file, given.calibration, given.wanted)
        if given.limit <= 0:
            return made
        if self._error(given, made) <= given.limit:
            return quantising.mixed(made) if made.float_layers else made
        return sensitivity.mixed(
            given.file,
            given.calibration,
            given.wanted,
            lambda file: self._error(given, file) <= given.limit,
        )

    def ensures(self, given: ToQuantise, made: ModelFile) -> None:
        """Inputs and outputs keep names and shapes, and have the types that were asked for."""
        if (made.inputs, made.outputs) != (given.file.inputs, given.file.outputs):
            raise StageFailed("the quantiser changed the model's inputs or outputs")
        if given.wanted.io == "float32":
            sides = (file_ends.inputs(made), made.inputs), (file_ends.outputs(made), made.outputs)
            for ends, specs in sides:
                for end, spec in zip(ends, specs, strict=True):
                    kind = np.dtype(end.details["dtype"]).name
                    if spec.dtype == "float32" and kind != "float32":
                        raise StageFailed(f"the quantiser left {spec.name} in {kind}, not float32")

    def pack(self, made: ModelFile) -> bytes:
        """See :class:`StoredStage`."""
        return made.pack()

    def unpack(self, data: bytes) -> ModelFile:
        """See :class:`StoredStage`."""
        return ModelFile.unpack(data)

    def _error(self, given: ToQuantise, made: ModelFile) -> float:
        from converters import host

        floats, quantised = (host.runner(file)(given.calibration) for file in (given.file, made))
        return quantising.largest_error(floats, quantised)


class LayerErrors(Plain, frozen=True, kw_only=True):
    """Layer -> numeric error that quantising it alone adds, worst first."""

    errors: dict[str, float]


class MeasureLayers(StoredStage[ToQuantise, LayerErrors]):
    """Which layers lose most."""

    name = "measure layers"

    def requires(self, given: ToQuantise) -> None:
        """Nothing beyond what quantising requires."""

    def run(self, given: ToQuantise) -> LayerErrors:
        """Quantise each layer alone."""
        return LayerErrors(
            errors=sensitivity.layer_errors(given.file, given.calibration, given.wanted)
        )

    def ensures(self, given: ToQuantise, made: LayerErrors) -> None:
        """Errors are finite and not negative."""
        if not all(0 <= error < float("inf") for error in made.errors.values()):
            raise StageFailed("a layer's measured error is no number; check the calibration rows")

    def pack(self, made: LayerErrors) -> bytes:
        """See :class:`StoredStage`."""
        return made.pack()

    def unpack(self, data: bytes) -> LayerErrors:
        """See :class:`StoredStage`."""
        return LayerErrors.unpack(data)


@dataclass(frozen=True, kw_only=True)
class ToCompile:
    """A quantised file for a target."""

    target: Target
    file: ModelFile

    def digest(self) -> str:
        """Of profile, tool and file: another tool makes another product."""
        return _joined(repr(self.target.profile), repr(self.target.tool()), self.file.digest())


class Compile(StoredStage[ToCompile, Compiled]):
    """The target's own file."""

    name = "compile"

    def requires(self, given: ToCompile) -> None:
        """The file's format has to be the target's."""
        wanted = given.target.profile.format
        if given.file.format != wanted:
            raise InvalidInput(f"{given.target.profile.target} takes {wanted} files")

    def run(self, given: ToCompile) -> Compiled:
        """Compile by the target's tool."""
        return given.target.compile(given.file)

    def ensures(self, given: ToCompile, made: Compiled) -> None:
        """There has to be a file."""
        if not made.data:
            raise StageFailed(f"{given.target.profile.target}: the compiler wrote an empty file")

    def pack(self, made: Compiled) -> bytes:
        """See :class:`StoredStage`."""
        return made.pack()

    def unpack(self, data: bytes) -> Compiled:
        """See :class:`StoredStage`."""
        return Compiled.unpack(data)


@dataclass(frozen=True, kw_only=True)
class ToTry:
    """A compiled file and rows for it."""

    target: Target
    compiled: Compiled
    feeds: Feeds

    def digest(self) -> str:
        """Of all."""
        return _joined(
            repr(self.target.profile),
            repr(self.target.tool()),
            self.compiled.digest(),
            tensors.digest(self.feeds),
        )


class Tried(Plain, frozen=True, kw_only=True):
    """What the target's tools said and what running the file gave."""

    placement: Placement
    estimate: Estimate
    answers: bytes
    """Packed outputs; empty where nothing here runs the file."""
    by: str
    on_hardware: bool
    latency_us: dict[str, float]

    @property
    def outputs(self) -> dict[str, Array] | None:
        """Outputs by name, [rows, ...] each; none where nothing here runs the file."""
        return tensors.unpack(self.answers) if self.answers else None


class Try(StoredStage[ToTry, Tried]):
    """Placement, estimate and answers of the compiled file."""

    name = "try"

    def requires(self, given: ToTry) -> None:
        """Rows have to fit the model."""
        source = given.compiled.source
        tensors.check(given.feeds, source.inputs, least_rows=1, what="the test data")

    def run(self, given: ToTry) -> Tried:
        """Ask the target's tools."""
        target, compiled = given.target, given.compiled
        ran = target.run(compiled, given.feeds, measure=True)
        answered = ran or Ran(outputs={}, by="", on_hardware=False)
        return Tried(
            placement=target.placement(compiled),
            estimate=target.estimate(compiled),
            answers=tensors.pack(ran.outputs) if ran else b"",
            by=answered.by,
            on_hardware=answered.on_hardware,
            latency_us=dict(answered.latency_us),
        )

    def ensures(self, given: ToTry, made: Tried) -> None:
        """Answers have to be finite and of the declared shape."""
        if made.outputs is not None:
            what = f"the answer of {given.target.profile.target}"
            tensors.check(made.outputs, given.compiled.source.outputs, least_rows=1, what=what)

    def pack(self, made: Tried) -> bytes:
        """See :class:`StoredStage`."""
        return made.pack()

    def unpack(self, data: bytes) -> Tried:
        """See :class:`StoredStage`."""
        return Tried.unpack(data)


def scaling_of(model: FloatModel) -> InputScaling:
    """The numbers of a scaling that was cut off."""
    scaling = model.scaling
    assert scaling is not None
    return InputScaling(
        shape=list(scaling.mean.shape),
        mean=scaling.mean.flatten().tolist(),
        gain=scaling.gain.flatten().tolist(),
        limit=scaling.limit,
    )


def _joined(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
