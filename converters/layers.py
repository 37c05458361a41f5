"""Layers that the converter knows by name."""

import torch
from torch import nn


class Standardise(nn.Module):
    """Scale each feature: ``clip((x - mean) * gain)`` to [-limit, limit].

    Raw features differ a thousandfold in range, too much for one int8 tensor. Where the target
    takes float32 the layer stays in the graph, in float. Where the target takes int8 only
    (microcontroller, NPU) the converter cuts it off and the manifest carries its numbers: the
    device then scales each feature while it quantises it.
    """

    def __init__(self, shape: tuple[int, ...], limit: float) -> None:
        super().__init__()
        self.limit = limit
        self.mean: torch.Tensor
        self.gain: torch.Tensor
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("gain", torch.ones(shape))

    def fit(self, rows: torch.Tensor) -> None:
        """Learn mean and gain from rows [rows, ...]; dimensions of size 1 are pooled over."""
        dims = [0] + [i + 1 for i, size in enumerate(self.mean.shape) if size == 1]
        self.mean.copy_(rows.mean(dims, keepdim=True)[0])
        self.gain.copy_(1 / (rows.std(dims, keepdim=True)[0] + 1e-6))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Float32 [batch, ...] -> the same shape."""
        return ((rows - self.mean) * self.gain).clamp(-self.limit, self.limit)


class Scaled(nn.Module):
    """A network behind its scaling: the form in which recipes hand over networks."""

    def __init__(self, scaling: Standardise, body: nn.Module) -> None:
        super().__init__()
        self.scaling = scaling
        self.body = body

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Float32 [batch, ...] -> logits float32 [batch, classes]."""
        logits: torch.Tensor = self.body(self.scaling(rows))
        return logits
