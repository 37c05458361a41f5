"""The trained float32 model: a torch module with named inputs and outputs."""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.tensors import Array, Feeds, TensorSpec, rows_of

if TYPE_CHECKING:
    import torch

    from converters.layers import Standardise

BATCH = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class FloatModel:
    """A module in evaluation mode. It takes ``inputs`` in order and answers ``outputs`` in order.

    Several outputs come as a tuple. Shapes have no batch; only the batch may vary.
    """

    module: "torch.nn.Module"
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def scaling(self) -> "Standardise | None":
        """The scaling in front, where there is one that can be cut off."""
        from converters.layers import Scaled

        return self.module.scaling if isinstance(self.module, Scaled) else None

    def without_scaling(self) -> "FloatModel":
        """The same model for rows that are scaled already; itself where it has no scaling."""
        from converters.layers import Scaled

        if not isinstance(self.module, Scaled):
            return self
        return FloatModel(module=self.module.body, inputs=self.inputs, outputs=self.outputs)

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Answer rows in float32, [rows, ...] each."""
        import torch

        parts: list[tuple[Array, ...]] = []
        with torch.no_grad():
            for start in range(0, rows_of(feeds), BATCH):
                given = [
                    torch.from_numpy(feeds[s.name][start : start + BATCH]) for s in self.inputs
                ]
                answered = self.module(*given)
                if not isinstance(answered, tuple | list):
                    answered = (answered,)
                parts.append(tuple(tensor.numpy() for tensor in answered))
        return {
            spec.name: np.concatenate([part[place] for part in parts])
            for place, spec in enumerate(self.outputs)
        }

    def digest(self) -> str:
        """Sha256 over structure and weights."""
        found = hashlib.sha256(str(self.module).encode())
        for name, tensor in sorted(self.module.state_dict().items()):
            array = np.ascontiguousarray(tensor.numpy())
            found.update(f"{name}\0{array.dtype.str}\0{array.shape}\n".encode())
            found.update(array.tobytes())
        return found.hexdigest()
