"""Encrypts a few bytes with a passphrase: Fernet (AES-128-CBC, HMAC-SHA256) under a key by scrypt.

Sources: RFC 7914 (scrypt), the Fernet specification; parameters as OWASP advises for passwords.
"""

import base64
import os

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

SALT_BYTES = 16
COST = 1 << 17
"""128 MiB for a second or so: what a guess costs."""


class WrongPassphrase(ValueError):
    """The passphrase is another one, or the bytes were altered."""


def encrypt(data: bytes, passphrase: bytes) -> bytes:
    """Encrypt; other bytes every time."""
    salt = os.urandom(SALT_BYTES)
    return salt + _cipher(salt, passphrase).encrypt(data)


def decrypt(encrypted: bytes, passphrase: bytes) -> bytes:
    """Decrypt; raise :class:`WrongPassphrase` where it is not the one, or bytes were altered."""
    salt, token = encrypted[:SALT_BYTES], encrypted[SALT_BYTES:]
    try:
        return _cipher(salt, passphrase).decrypt(token)
    except InvalidToken as error:
        raise WrongPassphrase("wrong passphrase, or altered") from error


def _cipher(salt: bytes, passphrase: bytes) -> Fernet:
    key = Scrypt(salt=salt, length=32, n=COST, r=8, p=1).derive(passphrase)
    return Fernet(base64.urlsafe_b64encode(key))
