"""What a bundle's golden rows can show of a device: a feature that never changes proves little."""

from pathlib import Path

import numpy as np

from converters.replay import exercised
from converters.replay.replayed import constant, listed
from edge_core.bundle import folder as folders
from edge_core.bundle import golden as goldens
from edge_core.bundle import manifest as manifests
from edge_core.bundle.golden import Golden
from edge_core.features import definition as definitions
from edge_core.features import playback
from edge_core.features.definition import FeatureDefinition, of_requests
from edge_core.features.logs import Log


def of_bundle(folder: Path) -> list[str]:
    """Lines for a person.

    Raises:
        InvalidBundle: the files are not readable.
    """
    definition = definitions.parse(
        folders.read_limited(folder / manifests.FEATURES, definitions.MAX_DEFINITION_BYTES)
    )
    data = folders.read_limited(folder / manifests.GOLDEN, goldens.MAX_GOLDEN_BYTES)
    return told(definition, goldens.unpack(data))


def told(definition: FeatureDefinition, golden: Golden) -> list[str]:
    """How many features vary over the golden rows, and what their log has not."""
    names = definition.feature_names
    same = constant(names, golden.features)
    said = f"golden rows: {len(names) - len(same)} of {len(names)} features vary"
    lines = [f"{said}; the same in every row: {listed(same)}" if same else said]
    if isinstance(golden.raw, Log):
        requests = of_requests(definition)
        played = playback.play(requests, golden.raw)
        counts = exercised.count(requests, golden.raw, np.asarray(golden.features), played)
        lacking = [name for name, times in counts.items() if not times and name != "restarts"]
        if lacking:
            lines.append(f"the golden log has not: {', '.join(lacking)}")
    return lines
