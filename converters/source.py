"""Where a float model comes from, in a form that travels to another process."""

import hashlib
from pathlib import Path
from typing import Protocol

from converters import definition_source, recipe_code
from converters.floating import FloatModel
from converters.product import Plain
from converters.recipe import Recipe
from converters.tensors import TensorSpec
from edge_core.features import definition as definitions
from edge_core.stats.projection import EMBEDDING


class Source(Protocol):
    """Names one trained model; making it imports torch."""

    def digest(self) -> str:
        """Sha256 over everything that the model depends on."""
        ...

    def load(self) -> FloatModel:
        """Make the model."""
        ...


class RecipeSource(Plain, frozen=True, kw_only=True):
    """A network of a recipe with trained weights."""

    folder: str
    recipe: Recipe
    code_sha256: str
    """Of the recipe folder's files, from which the network is made."""
    weights: bytes
    """The state dict as safetensors."""

    def load(self) -> FloatModel:
        """See :class:`Source`."""
        import safetensors.torch

        code = recipe_code.load(Path(self.folder), self.recipe.entry)
        definition = definition_source.load(Path(self.folder), self.recipe.features)
        network = code.network(definition, len(self.recipe.output.classes), self.recipe.settings)
        network.load_state_dict(safetensors.torch.load(self.weights))
        network.eval()
        return float_model(self.recipe, definition, network)

    def digest(self) -> str:
        """Sha256 of recipe, code and weights; where the folder lies does not matter."""
        found = hashlib.sha256(f"{self.code_sha256}\0".encode())
        found.update(repr(self.recipe).encode() + b"\0" + self.weights)
        return found.hexdigest()


def input_spec(recipe: Recipe, definition: definitions.FeatureDefinition) -> TensorSpec:
    """What a recipe's network takes."""
    if recipe.input == "samples":
        return TensorSpec(name="samples", shape=definition.raw_shape)
    return TensorSpec(name="features", shape=(len(definition.feature_names),))


def float_model(
    recipe: Recipe, definition: definitions.FeatureDefinition, network: object
) -> FloatModel:
    """A recipe's network with its input, the logits and, where it is declared, the embedding.

    Raises:
        InvalidConfiguration: the network has no such layer.
    """
    import torch

    assert isinstance(network, torch.nn.Module)
    outputs = [TensorSpec(name="logits", shape=(len(recipe.output.classes),))]
    if recipe.embedding is not None:
        from converters.embedding import WithEmbedding

        network = WithEmbedding(network, recipe.embedding.layer).eval()
        outputs.append(TensorSpec(name=EMBEDDING, shape=(recipe.embedding.size,)))
    return FloatModel(
        module=network, inputs=(input_spec(recipe, definition),), outputs=tuple(outputs)
    )


class FileSource(Plain, frozen=True, kw_only=True):
    """A model that a person hands over."""

    path: str
    sha256: str
    factory: str | None
    factory_sha256: str
    """Of the factory's file; empty where there is none."""
    example: bytes
    """One row of calibration data, packed by ``tensors.pack``."""

    def load(self) -> FloatModel:
        """See :class:`Source`."""
        from converters import loading, tensors

        return loading.load(
            Path(self.path), factory=self.factory, example=tensors.unpack(self.example)
        )
