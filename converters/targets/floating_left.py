"""Which layers may stay in float: those that the quantiser left there on purpose."""

from converters.model_file import ModelFile

FLOAT_SCHEMES = frozenset({"float32", "fp16", "int8 weight-only"})
"""Schemes whose products compute in float by their meaning."""


def allowed(model: ModelFile, layer: str) -> bool:
    """Whether a layer of the file, by its name there, may compute in float.

    In a file that is called int8 throughout, none may: what the quantiser could not take is
    listed in ``float_layers``, too, and must not pass unseen.
    """
    if model.scheme in FLOAT_SCHEMES:
        return True
    if model.scheme != "mixed":
        return False
    return layer in model.float_layers or model.origins.get(layer) in model.float_layers


def called(model: ModelFile, layer: str) -> str:
    """The layer by the module that it came from where that is known, else as the file says."""
    return model.origins.get(layer, layer)
