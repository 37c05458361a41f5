"""A network whose hidden layer is an output, too: the embedding that devices watch for drift."""

from typing import Any

import torch
from torch import nn

from edge_core.errors import InvalidConfiguration

LOWEST = -3e38
"""Nothing is below it, and no exporter takes that for nothing."""


class WithEmbedding(nn.Module):
    """Answers what the network does and, beside it, what one of its layers does.

    The network itself stays as it was trained; its weights are those of ``network``.
    """

    def __init__(self, network: nn.Module, layer: str) -> None:
        """Look for the layer by its module path.

        Raises:
            InvalidConfiguration: the network has no such layer; the message names those it has.
        """
        super().__init__()
        known = [name for name, _ in network.named_modules() if name]
        if layer not in known:
            raise InvalidConfiguration(
                f"embedding.layer: the network has no {layer}; it has {', '.join(known)}"
            )
        self.network = network
        self._layer = layer

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Float32 [batch, ...] -> logits [batch, classes] and embedding [batch, coordinates].

        Of a layer that is called several times, the last call counts.

        Raises:
            InvalidConfiguration: the layer is not called, or gives something else than a tensor.
        """
        heard: list[Any] = []
        hook = self.network.get_submodule(self._layer).register_forward_hook(
            lambda module, given, answered: heard.append(answered)
        )
        try:
            logits = self.network(rows)
        finally:
            hook.remove()
        if not heard or not isinstance(heard[-1], torch.Tensor):
            why = "gives no single tensor" if heard else "is not called"
            raise InvalidConfiguration(f"embedding.layer: {self._layer} {why}; name another")
        # Quantisers give a tensor one type and one range, for who reads it inside and outside; with
        # an operator of its own, the embedding is another tensor.
        return logits, heard[-1].clamp(min=LOWEST)


def check(network: nn.Module, layer: str, size: int, shape: tuple[int, ...]) -> None:
    """See that an untrained network can have the embedding; weights and chance stay as they are.

    Args:
        network: as its factory made it.
        layer: module path.
        size: of the embedding.
        shape: of one row that the network takes.

    Raises:
        InvalidConfiguration: there is no such layer, or it answers something else.
    """
    before = network.training
    wrapped = WithEmbedding(network, layer).eval()
    with torch.random.fork_rng(), torch.no_grad():
        found = tuple(wrapped(torch.zeros((1, *shape)))[1].shape[1:])
    network.train(before)
    if found != (size,):
        raise InvalidConfiguration(
            f"embedding: {layer} answers [batch, {', '.join(map(str, found))}], and the recipe "
            f"says [batch, {size}]; correct embedding.size, or name a layer behind it"
        )


def trained_part(module: nn.Module) -> nn.Module:
    """The network inside, where an embedding was put around it: whose weights are kept."""
    return module.network if isinstance(module, WithEmbedding) else module
