"""Golden rows, packed and unpacked."""

import numpy as np
import pytest

from edge_core.bundle import golden as goldens
from edge_core.bundle.golden import Golden
from edge_core.errors import InvalidBundle

TARGET = "cpu-x86_64-ort"
ROWS = np.random.default_rng(1).normal(0, 1, (4, 8, 2)).astype(np.float32)
FEATURES, LOGITS, EMBEDDING = ROWS[:, 0], ROWS[:, 1], ROWS[:, :, 0]
PLAIN = Golden(ROWS, FEATURES, {TARGET: LOGITS})


def test_embeddings_stand_beside_the_logits_of_their_target() -> None:
    found = goldens.unpack(goldens.pack(PLAIN._replace(embeddings={TARGET: EMBEDDING})))
    assert found.expected.keys() == found.embeddings.keys() == {TARGET}
    assert found.embeddings[TARGET].tobytes() == np.ascontiguousarray(EMBEDDING).tobytes()
    assert found.expected[TARGET].tobytes() == np.ascontiguousarray(LOGITS).tobytes()


def test_rows_without_embeddings_are_packed_as_ever() -> None:
    data = goldens.pack(PLAIN)
    assert b"embedding" not in data
    assert not goldens.unpack(data).embeddings


def test_an_embedding_of_another_type_is_refused() -> None:
    wrong = PLAIN._replace(embeddings={TARGET: EMBEDDING.astype(np.float64)})  # type: ignore[dict-item]
    with pytest.raises(InvalidBundle, match="not float32"):
        goldens.unpack(goldens.pack(wrong))
