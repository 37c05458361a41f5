"""Opens a key by its place, a file or a token, to sign TUF metadata with it."""

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from securesystemslib.exceptions import Error as SigningError
from securesystemslib.signer import CryptoSigner, Signer

from converters.keys import key_file, pkcs11_uri, token
from converters.keys.access import KeyAccess
from edge_core.errors import InvalidConfiguration

MADE_BY = "serinus-convert root keygen"


def signer(place: str | Path, access: KeyAccess) -> Signer:
    """Open the key at a path or ``pkcs11:`` URI.

    Raises:
        InvalidConfiguration: there is no such key, or it does not open.
    """
    if pkcs11_uri.is_one(str(place)):
        return token.TokenSigner(token.open_key(str(place), access))
    private = key_file.read(Path(place), access.secret, made_by=MADE_BY)
    try:
        return CryptoSigner(private)
    except (ValueError, UnsupportedAlgorithm, SigningError) as error:
        raise InvalidConfiguration(f"{place} is not a key that signs metadata: {error}") from error
