"""A key in a PKCS#11 module that vouches for keys in files, such as one in a TPM.

Python's TLS cannot use such a key, so it signs the enrolment and every renewal instead: whoever
copies the device's files has a certificate until it ends, and no other. Needs the extra ``pkcs11``.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from edge_core.errors import InvalidConfiguration, Unavailable

CURVE = "secp256r1"


class HardwareKey:
    """An EC P-256 key that never leaves its module; made where there is none of that label."""

    def __init__(self, module: Path, token: str, pin_file: Path, label: str) -> None:
        """Open the module and see that the key is there.

        Args:
            module: its library.
            token: label of the token that holds the key.
            pin_file: file with the token's PIN.
            label: the key's.

        Raises:
            InvalidConfiguration: the extra, the module, the token or its PIN is missing or wrong.
            Unavailable: the module fails.
        """
        self._module = module
        self._token = token
        self._pin_file = pin_file
        self._label = label
        self._pin = _pin(pin_file)
        with self._session(writing=True) as session:
            self._public_pem = self._public(session) or self._generate(session)

    @property
    def public_pem(self) -> str:
        """The public half."""
        return self._public_pem

    def sign(self, statement: bytes) -> bytes:
        """ECDSA with SHA-256, DER; raises as the constructor does."""
        import pkcs11
        from pkcs11.util.ec import encode_ecdsa_signature

        digest = hashlib.sha256(statement).digest()
        with self._session() as session:
            key = session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, label=self._label)
            signature: bytes = encode_ecdsa_signature(
                key.sign(digest, mechanism=pkcs11.Mechanism.ECDSA)
            )
        return signature

    def _public(self, session: Any) -> str:
        import pkcs11

        wanted = {
            pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PUBLIC_KEY,
            pkcs11.Attribute.LABEL: self._label,
        }
        found = list(session.get_objects(wanted))
        if len(found) > 1:
            raise InvalidConfiguration(
                f"the token holds {len(found)} keys {self._label!r}: name another label"
            )
        return _pem(found[0]) if found else ""

    def _generate(self, session: Any) -> str:
        import pkcs11
        from pkcs11.util.ec import encode_named_curve_parameters

        curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(CURVE)}
        parameters = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
        public, _ = parameters.generate_keypair(
            store=True, label=self._label, capabilities=pkcs11.MechanismFlag.SIGN
        )
        return _pem(public)

    @contextmanager
    def _session(self, *, writing: bool = False) -> Iterator[Any]:
        try:
            import pkcs11
        except ImportError as error:
            raise InvalidConfiguration(
                "[identity] pkcs11_module needs the extra 'pkcs11': install serinus[agent,pkcs11]"
            ) from error
        wrong = (pkcs11.exceptions.PinIncorrect, pkcs11.exceptions.PinLenRange)
        try:
            token = pkcs11.lib(str(self._module)).get_token(token_label=self._token)
            with token.open(user_pin=self._pin, rw=writing) as session:
                yield session
        except pkcs11.exceptions.NoSuchToken as error:
            raise InvalidConfiguration(
                f"{self._module} has no token {self._token!r}: make it, or correct [identity]"
            ) from error
        except wrong as error:  # not tried again: tokens lock themselves after some wrong PINs
            raise InvalidConfiguration(
                f"the PIN in {self._pin_file} is not that of {self._token!r}"
            ) from error
        except pkcs11.exceptions.PKCS11Error as error:
            said = str(error) or type(error).__name__
            raise Unavailable(f"the PKCS#11 module {self._module} fails: {said}") from error


def _pin(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(
            f"cannot read [identity] pkcs11_pin_file {file}: {error}"
        ) from error


def _pem(key: Any) -> str:
    from pkcs11.util.ec import encode_ec_public_key

    public = load_der_public_key(encode_ec_public_key(key))
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
