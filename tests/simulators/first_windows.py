"""Windows as version 1 of the message had them: every name in full, so that they can lie freely."""

import msgspec
import numpy as np

from edge_core.messages.telemetry import PairedCounts1, StatsWindow, StatsWindow1

ARRAYS = ("counts", "latency", "right", "wrong")


def encode(window: StatsWindow) -> bytes:
    """The bytes that an old agent would send; arrays of odd lengths stay as they are."""
    fields = msgspec.structs.asdict(window)
    for name in ("cost", "paired_with", "fallbacks", "dropped"):
        del fields[name]
    for name in ARRAYS:
        data = fields[name]
        if len(data) % 8 == 0:
            fields[name] = np.frombuffer(data, "<i8").astype("<u4").tobytes()
    if window.paired is not None:
        fields["paired"] = PairedCounts1(**msgspec.structs.asdict(window.paired))
    return msgspec.msgpack.encode(StatsWindow1(**fields))
