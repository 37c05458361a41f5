"""A real small bundle, signed by a key made for the session."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from converters import signing
from edge_core.bundle import provenance, signature
from edge_core.bundle.digest import sha256_bytes
from edge_core.bundle.provenance import (
    BUILD_TYPE,
    BuildDefinition,
    Builder,
    Invocation,
    Predicate,
    RunDetails,
)
from tests.simulators.tiny_bundle import tiny_bundle

PREDICATE = Predicate(
    build_definition=BuildDefinition(
        build_type=BUILD_TYPE, external_parameters={"recipe": "tiny", "seed": 7}
    ),
    run_details=RunDetails(
        builder=Builder(id="urn:serinus:test"), metadata=Invocation(invocation_id="1")
    ),
)


class StatementKey:
    """An EC P-256 key that signs whatever a test asks it to."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.public = self.private.public_key()

    def sign(self, payload: bytes) -> bytes:
        """Signature file over any payload."""
        message = signature.pre_authentication_encoding(payload)
        return signature.envelope(
            payload, self.private.sign(message, ec.ECDSA(hashes.SHA256())), self.public
        )

    def statement(self, resources: Mapping[str, str]) -> bytes:
        """Signature file over a statement about these files."""
        return self.sign(signature.statement_payload("tiny", resources))

    def provenance(self, manifest: bytes) -> bytes:
        """Provenance file of a manifest with these bytes."""
        return self.attested(provenance.payload(sha256_bytes(manifest), PREDICATE))

    def attested(self, payload: bytes) -> bytes:
        """Provenance file over any payload."""
        message = signature.pre_authentication_encoding(payload)
        signed = self.private.sign(message, ec.ECDSA(hashes.SHA256()))
        return provenance.envelope(payload, signed, self.public)


@pytest.fixture(scope="session")
def key() -> StatementKey:
    return StatementKey()


@pytest.fixture(scope="session")
def _signed_bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("signed")
    private = signing.generate_key(folder / "keys")
    return tiny_bundle(folder / "bundle", sign_with=private), private.with_name(signing.PUBLIC_KEY)


@pytest.fixture
def bundle(_signed_bundle: tuple[Path, Path], tmp_path: Path) -> Path:
    """A signed bundle folder of the test's own."""
    return shutil.copytree(_signed_bundle[0], tmp_path / "bundle")


@pytest.fixture(scope="session")
def bundle_key(_signed_bundle: tuple[Path, Path]) -> ec.EllipticCurvePublicKey:
    """The public key that belongs to ``bundle``."""
    return signature.load_public_key(_signed_bundle[1].read_bytes())
