"""Keeps the conversion tools' chatter off the terminal, native libraries included."""

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

STANDARD_STREAMS = (1, 2)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Send everything that is printed meanwhile to a file that is thrown away."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(stream) for stream in STANDARD_STREAMS]
    try:
        with tempfile.TemporaryFile() as sink, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for stream in STANDARD_STREAMS:
                os.dup2(sink.fileno(), stream)
            yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, copy in zip(STANDARD_STREAMS, kept, strict=True):
            os.dup2(copy, stream)
            os.close(copy)
