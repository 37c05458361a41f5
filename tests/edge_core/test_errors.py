"""What a refusal repeats of foreign bytes is short and cannot steer a terminal."""

import base64
import json
from collections.abc import Callable

import msgspec
import pytest

from edge_core import baseline
from edge_core.bundle import manifest, signature
from edge_core.errors import MAX_QUOTED, SerinusError, quoted
from edge_core.features import definition
from edge_core.stats import histogram

HOSTILE = "\x1b[2J\nall is well" + "x" * 60_000


def verify(data: bytes) -> signature.Statement:
    return signature.verify(data, [])


def bundle_of(payload: str) -> bytes:
    return json.dumps(
        {
            "mediaType": HOSTILE,
            "verificationMaterial": {"publicKey": {"hint": ""}},
            "dsseEnvelope": {"payload": payload, "payloadType": "", "signatures": []},
        }
    ).encode()


@pytest.mark.parametrize(
    ("parse", "data"),
    [
        (manifest.parse, json.dumps({"schema_version": 1, HOSTILE: 1}).encode()),
        (definition.parse, json.dumps({"v": 1, HOSTILE: 1}).encode()),
        (baseline.parse, json.dumps({"v": 1, HOSTILE: 1}).encode()),
        (histogram.parse, msgspec.msgpack.encode({"v": 1, HOSTILE: 1})),
        (verify, bundle_of(base64.b64encode(b"{}").decode())),
    ],
    ids=["manifest", "definition", "baseline", "reference", "signature"],
)
def test_a_refusal_of_hostile_bytes_is_one_short_line(
    parse: Callable[[bytes], object], data: bytes
) -> None:
    with pytest.raises(SerinusError) as refused:
        parse(data)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < MAX_QUOTED + 100


def test_ordinary_words_are_quoted_as_they_are() -> None:
    assert quoted(ValueError("Größe: expected `int` - at `$.v`")) == (
        "Größe: expected `int` - at `$.v`"
    )
