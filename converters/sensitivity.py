"""Which layers int8 hurts: each alone, and the fewest that have to stay in float."""

from collections.abc import Callable

import msgspec

from converters import quantising
from converters.model_file import ModelFile
from converters.quantising import Wanted
from converters.refusal import StageFailed
from converters.targets import int8_io
from converters.tensors import Feeds


def layer_errors(floats: ModelFile, calibration: Feeds, wanted: Wanted) -> dict[str, float]:
    """Numeric error that quantising each layer alone adds, worst first.

    Args:
        floats: the float file.
        calibration: unscaled rows.
        wanted: as for the whole file; ``auto`` is measured once, for the whole file.

    Returns:
        Module path (or the file's own name) -> rms difference over the output's deviation.
    """
    names = quantising.layers(floats)
    rows = {name: int8_io.scaled(array, floats.scaling) for name, array in calibration.items()}
    plain = msgspec.structs.replace(floats, scaling=None)
    method = quantising.quantise(plain, rows, wanted).settings.get("calibration", "min/max")
    found: dict[str, float] = {}
    for name in names:
        alone = msgspec.structs.replace(
            wanted,
            method=method,
            io="float32",  # the ends stay as they are: only this layer changes
            keep_float=tuple(other for other in names if other != name),
        )
        made = quantising.quantise(plain, rows, alone)
        module = quantising.origins(floats, [name])[0]
        error = quantising.error_of(plain, made.data, rows)
        found[module] = max(error, found.get(module, 0.0))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def mixed(
    floats: ModelFile,
    calibration: Feeds,
    wanted: Wanted,
    passes: Callable[[ModelFile], bool],
) -> ModelFile:
    """Leave the fewest layers in float that make ``passes`` true.

    The most sensitive go first, until it passes; then each is tried in int8 again, the least
    sensitive first, so that none stays in float for nothing.

    Raises:
        StageFailed: it does not pass even with every layer in float.
    """
    errors = layer_errors(floats, calibration, wanted)
    names = sorted(
        quantising.layers(floats),
        key=lambda name: -errors[quantising.origins(floats, [name])[0]],
    )

    def keeping(kept: list[str]) -> ModelFile:
        chosen = msgspec.structs.replace(wanted, keep_float=tuple(kept))
        return quantising.quantise(floats, calibration, chosen)

    for count in range(1, len(names) + 1):
        if passes(keeping(names[:count])):
            return keeping(_needed(names[:count], lambda kept: passes(keeping(kept))))
    raise StageFailed(
        "no mixture of int8 and float passes: even with every layer in float the limit is missed; "
        "look at the calibration rows, or at what stands between the layers"
    )


def _needed(kept: list[str], passes: Callable[[list[str]], bool]) -> list[str]:
    """Drop every layer without which it still passes."""
    for name in reversed(kept[:-1]):
        fewer = [other for other in kept if other != name]
        if passes(fewer):
            kept = fewer
    return kept
