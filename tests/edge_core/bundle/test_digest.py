import hashlib
from pathlib import Path

import pytest

from edge_core.bundle import digest
from edge_core.errors import InvalidBundle


@pytest.mark.parametrize("size", [0, 1, digest.CHUNK_BYTES, digest.CHUNK_BYTES + 1])
def test_a_file_digests_as_its_bytes_do(tmp_path: Path, size: int) -> None:
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    path = tmp_path / "file"
    path.write_bytes(data)
    assert digest.sha256_file(path, limit=size) == (hashlib.sha256(data).hexdigest(), size)
    assert digest.sha256_bytes(data) == hashlib.sha256(data).hexdigest()


def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"12345")
    with pytest.raises(InvalidBundle, match="large has more than the 4 bytes"):
        digest.sha256_file(path, limit=4)


def test_a_missing_file_or_a_folder_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(InvalidBundle, match=str(path)):
            digest.sha256_file(path, limit=4)
