"""What a build showed, for the card, the plots and CI; the manifest holds the figures."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_core.bundle.manifest import Manifest

WHOLE = "all"
"""Name of the whole test set beside the slices."""

Confusion = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """The manifest and what would be too much for it."""

    manifest: Manifest
    floating: Mapping[str, float]
    """Test-set figures of the fp32 model, named as in ``Manifest.metrics``."""
    fallback: Mapping[str, float]
    """The same of the simple baseline."""
    confusion: Mapping[str, Confusion]
    """``all`` and each slice ``name=value`` that has rows -> int64 [classes, classes]: rows are
    true classes, columns answered ones, of the first variant that was run."""
