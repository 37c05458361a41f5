"""Who asks: the name that a client of HTTP or gRPC gives itself."""

import re

from edge_core.errors import InvalidInput

HTTP_HEADER = b"x-serinus-consumer"
GRPC_METADATA = "serinus-consumer"
MAX_NAME = 64
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._/@:-]{{0,{MAX_NAME - 1}}}")


def named(value: str | bytes | None, interface: str) -> str:
    """The consumer's name; that of the interface where none was given, so that it shows.

    Raises:
        InvalidInput: it is too long, or has characters that logs and statistics do not keep.
    """
    if value is None:
        return interface
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if not _NAME.fullmatch(text):
        raise InvalidInput(
            f"a consumer's name has 1 to {MAX_NAME} letters, digits and ._/@:- and begins with a "
            "letter or digit"
        )
    return text
