"""Which layers int8 hurts, and which to leave in float so that a gate passes."""

from collections.abc import Callable, Collection, Mapping

from converters import graph, quantising
from converters.calibration import Single
from converters.model_file import ModelFile
from converters.quantisers import open_quantiser
from converters.quantising import Static, Wanted
from converters.refusal import StageFailed
from converters.tensors import Feeds


def layer_errors(floats: ModelFile, calibration: Feeds, wanted: Wanted) -> dict[str, float]:
    """Numeric error that quantising each layer alone adds, all others in float32; largest first.

    A layer is a torch module with products in it, by path, or a node where that is not known.
    Errors are measured on held-out calibration rows, with the method that is best for the whole
    file where ``wanted`` says ``auto``.

    Raises:
        InvalidInput: unfit calibration rows.
    """
    return _Search(floats, calibration, wanted).errors()


def mixed(
    floats: ModelFile, calibration: Feeds, wanted: Wanted, passes: Callable[[ModelFile], bool]
) -> ModelFile:
    """Leave few layers in float: enough that ``passes`` agrees.

    The most sensitive layers stay in float, as many as it takes (found by halving); then each of
    them is tried in int8 again, the least sensitive first. No layer that is left in float could be
    quantised alone without failing; another choice with fewer layers may exist.

    Args:
        floats: the float file.
        calibration: unscaled rows by input name.
        wanted: as for :func:`converters.quantising.quantise`; ``keep_float`` stays in any case.
        passes: judges a file, such as by the numeric gate; asked about ``2 + log2(layers)`` times,
            and once more for each layer left in float.

    Returns:
        Scheme ``mixed`` with ``float_layers``, or ``int8 static`` where no layer need be left.

    Raises:
        InvalidInput: unfit calibration rows.
        StageFailed: even the float file fails, or the target takes int8 only.
    """
    search = _Search(floats, calibration, wanted)
    whole = search.file(())
    if passes(whole):
        return whole
    if wanted.io == "int8":
        raise StageFailed(
            "static int8 fails its gate, and a target that takes int8 only leaves no layer in "
            "float; train the quantised model, or give it more calibration rows"
        )
    order = list(search.errors())
    if not passes(search.file(order)):
        raise StageFailed(
            "even with every layer in float the gate fails; int8 is not what it lacks: "
            "look at the gate and at the float model"
        )
    return search.file(_take_back(search, _fewest(search, order, passes), passes))


class _Search:
    """Files of one float model with some layers quantised."""

    def __init__(self, floats: ModelFile, calibration: Feeds, wanted: Wanted) -> None:
        opened = open_quantiser(floats)
        self._static = Static(opened, calibration, wanted)
        always = graph.kept_steps(floats, opened.steps, wanted.keep_float)
        self._layers = graph.layers(
            floats, (name for name in opened.products if name not in always)
        )
        self._always = always
        self._wanted = wanted
        whole = self._static.file(always)
        self._method: Single = _method(whole.settings)
        self._whole = whole

    def errors(self) -> dict[str, float]:
        """Numeric error of each layer alone; largest first."""
        found = {
            layer: self._static.error(self._static.only(self._method, steps))
            for layer, steps in self._layers.items()
        }
        return dict(sorted(found.items(), key=lambda entry: -entry[1]))

    def file(self, kept: Collection[str]) -> ModelFile:
        """All layers quantised but ``kept``."""
        if not kept:
            return self._whole
        left = {step for layer in kept for step in self._layers[layer]}
        return quantising.mixed(self._static.by(self._method, left | self._always))


def _method(settings: Mapping[str, str | bool | float]) -> Single:
    found: dict[str | bool | float, Single] = {
        "min/max": "min/max",
        "percentile": "percentile",
        "entropy": "entropy",
    }
    return found[settings["calibration"]]


def _fewest(search: _Search, order: list[str], passes: Callable[[ModelFile], bool]) -> list[str]:
    """The shortest start of ``order`` that passes; none fails and all pass, as was asked before."""
    fails, does = 0, len(order)
    while does - fails > 1:
        middle = (fails + does) // 2
        if passes(search.file(order[:middle])):
            does = middle
        else:
            fails = middle
    return order[:does]


def _take_back(search: _Search, kept: list[str], passes: Callable[[ModelFile], bool]) -> list[str]:
    """Quantise layers again that need not be in float, the least sensitive first."""
    # Without the last one it failed: that is how many were found.
    for layer in reversed(kept[:-1]):
        fewer = [other for other in kept if other != layer]
        if passes(search.file(fewer)):
            kept = fewer
    return kept
