"""Ranges of a float model's tensors, from rows that it answers.

A range that is too wide wastes steps, one that is too narrow cuts values off; which method errs
least depends on the data, so ``auto`` (``converters.quantising``) measures all of them.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from converters.model_file import ModelFile
from converters.tensors import Array, Feeds, rows_of, take

RangeMethod = Literal["min/max", "percentile", "entropy"]
RANGE_METHODS: tuple[RangeMethod, ...] = ("min/max", "percentile", "entropy")
Ranges = Mapping[str, tuple[float, float]]
"""Tensor name in the file -> lowest and highest value to be told apart."""

PERCENTILE = 99.99
BINS = 2048
STEPS = 128
"""Positive values that 8 bits tell apart."""
BATCH = 64

Float64 = npt.NDArray[np.float64]


class Observation:
    """Extremes and histograms of every float tensor of a file over some rows."""

    def __init__(self, file: ModelFile, feeds: Feeds) -> None:
        self._extremes: dict[str, tuple[float, float]] = {}
        self._counts: dict[str, Float64] = {}
        for tensors in _answers(file, feeds):
            for name, values in tensors.items():
                low, high = self._extremes.get(name, (np.inf, -np.inf))
                self._extremes[name] = (
                    min(low, float(values.min())),
                    max(high, float(values.max())),
                )
        for tensors in _answers(file, feeds):
            for name, values in tensors.items():
                counts = self._counts.setdefault(name, np.zeros(BINS))
                counts += np.histogram(values, BINS, self._edges(name))[0]

    def ranges(self, method: RangeMethod) -> dict[str, tuple[float, float]]:
        """The range of each tensor by one method.

        ``min/max`` takes the true extremes of all rows. ``percentile`` cuts off the outermost
        0.01 % of values. ``entropy`` chooses the threshold whose 8-bit histogram loses least
        information (Migacz, "8-bit Inference with TensorRT", 2017).
        """
        if method == "min/max":
            return dict(self._extremes)
        choose = self._percentile if method == "percentile" else self._entropy
        return {name: choose(name) for name in self._extremes}

    def _edges(self, name: str) -> tuple[float, float]:
        low, high = self._extremes[name]
        return (low, high) if low < high else (low - 0.5, high + 0.5)

    def _percentile(self, name: str) -> tuple[float, float]:
        low, high = self._edges(name)
        edges = np.linspace(low, high, BINS + 1)
        share = np.cumsum(self._counts[name]) / self._counts[name].sum()
        tail = 1 - PERCENTILE / 100
        first = int(np.searchsorted(share, tail))
        last = int(np.searchsorted(share, 1 - tail))
        return float(edges[min(first, BINS - 1)]), float(edges[min(last, BINS - 1) + 1])

    def _entropy(self, name: str) -> tuple[float, float]:
        low, high = self._extremes[name]
        edges = np.linspace(*self._edges(name), BINS + 1)
        middles = np.abs((edges[:-1] + edges[1:]) / 2)
        largest = max(abs(low), abs(high))
        if largest == 0:
            return low, high
        counts = np.histogram(middles, BINS, (0, largest), weights=self._counts[name])[0]
        threshold = (least_loss(counts) / BINS) * largest
        return max(low, -threshold), min(high, threshold)


def least_loss(counts: Float64) -> int:
    """How many leading bins to keep, so that 128 steps over them lose least information.

    Args:
        counts: of magnitudes in bins of equal width, float64 [bins].

    Returns:
        A number of bins between 128 and all of them.
    """
    best, least = len(counts), np.inf
    for kept in range(STEPS, len(counts) + 1, STEPS // 8):
        reference = counts[:kept].copy()
        reference[-1] += counts[kept:].sum()
        loss = _divergence(reference, _coarse(counts[:kept]))
        if loss < least:
            best, least = kept, loss
    return best


def _coarse(counts: Float64) -> Float64:
    """The same mass told apart by 128 steps only, spread evenly over the bins that hold any."""
    steps = np.arange(len(counts)) * STEPS // len(counts)
    filled = counts > 0
    mass = np.bincount(steps, weights=counts, minlength=STEPS)
    places = np.bincount(steps, weights=filled, minlength=STEPS)
    return np.where(filled, (mass / np.maximum(places, 1))[steps], 0.0)


def _divergence(reference: Float64, coarse: Float64) -> float:
    """Kullback-Leibler divergence in nats, smoothed where only the reference has mass."""
    p, q = reference / reference.sum(), (coarse + 1e-9) / (coarse + 1e-9).sum()
    held = p > 0
    return float((p[held] * np.log(p[held] / q[held])).sum())


def _answers(file: ModelFile, feeds: Feeds) -> Iterator[dict[str, Array]]:
    """All float tensors inside the file, batch by batch."""
    run = _OnnxTensors(file) if file.format == "onnx" else _TfliteTensors(file)
    for start in range(0, rows_of(feeds), BATCH):
        places = np.arange(start, min(start + BATCH, rows_of(feeds)))
        yield run(take(feeds, places))


class _OnnxTensors:
    """Every float tensor of an ONNX graph, by making all of them outputs."""

    def __init__(self, file: ModelFile) -> None:
        import onnx
        import onnxruntime

        model = onnx.load_model_from_string(file.data)
        known = {entry.name for entry in model.graph.output}
        self._inputs = [spec.name for spec in file.inputs if spec.dtype == "float32"]
        inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
        floats = [v for v in inferred if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
        model.graph.output.extend(v for v in floats if v.name not in known)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._names = [entry.name for entry in self._session.get_outputs()]

    def __call__(self, feeds: Feeds) -> dict[str, Array]:
        found = dict(zip(self._names, self._session.run(None, dict(feeds)), strict=True))
        found |= {name: feeds[name] for name in self._inputs}
        return {n: v for n, v in found.items() if v.dtype == np.float32 and v.size}


class _TfliteTensors:
    """Every float tensor of a TFLite graph, by an interpreter that keeps them."""

    def __init__(self, file: ModelFile) -> None:
        self._file = file

    def __call__(self, feeds: Feeds) -> dict[str, Array]:
        try:
            return self._run(feeds)
        except RuntimeError:  # the file holds its batch of one in a constant
            if rows_of(feeds) == 1:
                raise
        parts = [self._run(take(feeds, [row])) for row in range(rows_of(feeds))]
        return {name: np.concatenate([part[name].ravel() for part in parts]) for name in parts[0]}

    def _run(self, feeds: Feeds) -> dict[str, Array]:
        from converters.targets import int8_io, litert

        made = litert.interpreter(self._file.data, rows_of(feeds), keep=True)
        litert.invoke(made, int8_io.Ends(self._file).given(feeds))
        found = {}
        for details in made.get_tensor_details():
            if details["dtype"] != np.float32 or not details["name"]:
                continue
            try:
                values = made.get_tensor(details["index"])
            except ValueError:  # an optimised-away tensor has no memory
                continue
            if values.size:
                found[details["name"]] = np.array(values)
        return found
