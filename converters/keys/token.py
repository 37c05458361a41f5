"""Keys that never leave a PKCS#11 token: smart card, HSM, SoftHSM. ECDSA on P-256 and P-384.

The PIN is asked for once, and never tried twice: three wrong ones lock most tokens.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from securesystemslib.signer import Key, SecretsHandler, Signature, Signer, SSlibKey

from converters.keys import pkcs11_uri
from converters.keys.access import MODULE, KeyAccess, read_passphrase
from converters.keys.pkcs11_uri import TokenKeyName
from edge_core.errors import InvalidConfiguration, Unavailable

if TYPE_CHECKING:
    import pkcs11

SCHEMES = {"secp256r1": "ecdsa-sha2-nistp256", "secp384r1": "ecdsa-sha2-nistp384"}
HASHES = {"secp256r1": "sha256", "secp384r1": "sha384"}


class TokenKey:
    """One key pair on a token, its session open."""

    def __init__(self, uri: str, private: Any, public: ec.EllipticCurvePublicKey) -> None:
        self._uri = uri
        self._private = private
        self.public = public

    def sign(self, data: bytes) -> bytes:
        """ECDSA over the hash that belongs to the curve, as DER.

        Raises:
            Unavailable: the token was taken out or refuses.
        """
        import pkcs11
        import pkcs11.util.ec

        digest = hashlib.new(HASHES[self.public.curve.name], data).digest()
        try:
            signed = self._private.sign(digest, mechanism=pkcs11.Mechanism.ECDSA)
        except pkcs11.PKCS11Error as error:
            raise Unavailable(f"{self._uri} does not sign: {_said(error)}") from error
        made: bytes = pkcs11.util.ec.encode_ecdsa_signature(signed)
        return made


class TokenSigner(Signer):
    """Signs TUF metadata with a key on a token."""

    def __init__(self, key: TokenKey) -> None:
        self._key = key
        self._public = SSlibKey.from_crypto(key.public, scheme=SCHEMES[key.public.curve.name])

    @property
    def public_key(self) -> SSlibKey:
        """Public half, as TUF names it."""
        return self._public

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> "TokenSigner":
        """Not used here: keys are opened by :func:`open_key`."""
        raise NotImplementedError

    def sign(self, payload: bytes) -> Signature:
        """Sign bytes."""
        return Signature(self._public.keyid, self._key.sign(payload).hex())


def open_key(uri: str, access: KeyAccess) -> TokenKey:
    """Log in to the token and find the one key that a URI names.

    Raises:
        InvalidConfiguration: no module, token or key, several of them, a wrong PIN or a key of a
            kind that is not signed with here.
    """
    name = pkcs11_uri.parse(uri)
    try:
        import pkcs11
    except ImportError as error:
        raise InvalidConfiguration(
            "keys on tokens need python-pkcs11: pip install 'serinus[pkcs11]'"
        ) from error
    token = _token(uri, name, access)
    try:
        return _found(_logged_in(token, _pin(uri, name, access)), name, uri)
    except (pkcs11.PinIncorrect, pkcs11.PinLenRange) as error:
        raise InvalidConfiguration(
            f"the PIN does not open {uri}; it was tried once, and a few wrong ones lock the token"
        ) from error
    except pkcs11.PKCS11Error as error:
        raise InvalidConfiguration(f"cannot open {uri}: {_said(error)}") from error


def _logged_in(token: "pkcs11.Token", pin: str) -> Any:
    """A session that may use private keys; logging in holds for all sessions of a process."""
    import pkcs11

    try:
        return token.open(user_pin=pin)
    except pkcs11.UserAlreadyLoggedIn:  # another key on the same token was opened before
        return token.open()


def _found(session: Any, name: TokenKeyName, uri: str) -> TokenKey:
    import pkcs11

    try:
        private = _only(session, pkcs11.ObjectClass.PRIVATE_KEY, name, uri)
        public = _only(session, pkcs11.ObjectClass.PUBLIC_KEY, name, uri)
        return TokenKey(uri, private, _public(public, uri))
    except (InvalidConfiguration, pkcs11.PKCS11Error):
        session.close()
        raise


def _token(uri: str, name: TokenKeyName, access: KeyAccess) -> "pkcs11.Token":
    import pkcs11

    module = name.module_path or access.module
    if not module:
        raise InvalidConfiguration(
            f"no PKCS#11 module for {uri}: set {MODULE}, or add ?module-path=/usr/lib/MODULE.so"
        )
    try:
        found = [t for t in pkcs11.lib(module).get_tokens() if _matches(t, name)]
    except RuntimeError as error:  # PKCS11Error is one; a file that is no module gives another
        raise InvalidConfiguration(
            f"cannot use the PKCS#11 module {module}: {_said(error)}"
        ) from error
    if len(found) != 1:
        labels = ", ".join(t.label.strip() for t in found) or "none"
        raise InvalidConfiguration(
            f"{uri} has to name one token; it names {labels}: give token=LABEL or serial=NUMBER"
        )
    return found[0]


def _matches(token: Any, name: TokenKeyName) -> bool:
    import pkcs11

    if not token.flags & pkcs11.TokenFlag.TOKEN_INITIALIZED:
        return False
    wanted = (
        (name.token, token.label),
        (name.serial, token.serial.decode(errors="replace")),
        (name.manufacturer, token.manufacturer_id),
        (name.model, token.model),
    )
    return all(asked is None or asked == found.strip(" \0") for asked, found in wanted)


def _pin(uri: str, name: TokenKeyName, access: KeyAccess) -> str:
    pin = (
        read_passphrase(Path(name.pin_source))
        if name.pin_source is not None
        else access.secret(f"PIN of {uri}")
    )
    if pin is None:
        raise InvalidConfiguration(
            f"no PIN for {uri}: add ?pin-source=FILE, or name a file with --passphrase-file"
        )
    try:
        return pin.decode()
    except UnicodeDecodeError as error:
        raise InvalidConfiguration(f"the PIN of {uri} is not text") from error


def _only(session: Any, kind: Any, name: TokenKeyName, uri: str) -> Any:
    import pkcs11

    wanted: dict[Any, Any] = {pkcs11.Attribute.CLASS: kind}
    if name.object is not None:
        wanted[pkcs11.Attribute.LABEL] = name.object
    if name.id is not None:
        wanted[pkcs11.Attribute.ID] = name.id
    found = list(session.get_objects(wanted))
    if len(found) != 1:
        half = "private" if kind == pkcs11.ObjectClass.PRIVATE_KEY else "public"
        raise InvalidConfiguration(
            f"{uri} has to name one {half} key; the token has {len(found)} such: look with "
            "pkcs11-tool --list-objects"
        )
    return found[0]


def _public(found: Any, uri: str) -> ec.EllipticCurvePublicKey:
    import pkcs11
    import pkcs11.util.ec

    try:
        if found.key_type != pkcs11.KeyType.EC:
            raise ValueError("it is not an EC key")
        key = load_der_public_key(pkcs11.util.ec.encode_ec_public_key(found))
    except (ValueError, UnsupportedAlgorithm, pkcs11.PKCS11Error) as error:
        raise InvalidConfiguration(f"{uri} is not an EC key: make one on P-256") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in SCHEMES:
        raise InvalidConfiguration(f"{uri} is not on P-256 or P-384")
    return key


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
