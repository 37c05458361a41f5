"""From a model file's logits to the answer that an application sees."""

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]


def probabilities(logits: Float32) -> Float32:
    """Softmax over the last axis, float32 [batch, classes] -> float32 [batch, classes].

    Computed in float64 and rounded once, so that devices agree to the last bit wherever their
    runtimes gave the same logits.
    """
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    np.exp(wide, out=wide)
    wide /= wide.sum(axis=-1, keepdims=True)
    return wide.astype(np.float32)
