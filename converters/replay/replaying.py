"""Replays a log through both entries of a bundle's features, and compares the bits."""

from pathlib import Path

from converters.data import event_log
from converters.data.log_folder import LogFolder
from converters.replay import requests, windows
from converters.replay.replayed import Replayed, Step, unseen
from edge_core.bundle import folder as folders
from edge_core.bundle import manifest as manifests
from edge_core.features import definition as definitions
from edge_core.features.request_definition import RequestDefinition


def parity(bundle: Path, log: Path, step: Step = unseen) -> Replayed:
    """Replay a log with a bundle's own feature definition.

    Args:
        bundle: its folder.
        log: a file of samples, or a folder of events and requests, as the definition needs.
        step: shows what runs.

    Raises:
        InvalidInput: the log cannot be read, or its values are refused.
    """
    definition = definitions.parse(
        folders.read_limited(bundle / manifests.FEATURES, definitions.MAX_DEFINITION_BYTES)
    )
    if isinstance(definition, RequestDefinition):
        with step("the log"):
            whole = LogFolder(log, definition).read().log
        return requests.replay(definition, whole, step=step)
    with step("the log"):
        samples = event_log.read(log, definition.inputs)
    return windows.replay(definition, samples, step=step)
