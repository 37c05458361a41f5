"""Inputs that once did harm, each as a plain test."""

import base64
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tuf.api.metadata import Metadata, Root

from converters.ceremony import proposal
from edge_agent.serving import frames, prediction_log
from edge_agent.update.journal import FILE, Entry, Journal
from edge_agent.update.slots import POINTER, Slots
from edge_core import baseline
from edge_core.bundle import golden
from edge_core.errors import (
    MAX_TEXT,
    InvalidBundle,
    InvalidConfiguration,
    InvalidInput,
    InvalidMessage,
    SerinusError,
)
from edge_core.features import columns
from edge_core.features.requests import Number
from edge_core.messages import codec
from edge_core.messages.deployment import DesiredState
from edge_core.stats.histogram import Channel
from fleet_server.domain import enrolling
from tests.simulators.enrolling import csr, new_key
from tests.simulators.tiny_requests import BEGIN, DEFINITION


def test_foreign_names_in_a_refusal_neither_steer_a_terminal_nor_fill_it() -> None:
    assert str(InvalidInput("unknown \x1b[31m\nfield \u2028")) == "unknown ?[31m?field ?"
    assert len(str(InvalidInput("x" * 100_000))) == MAX_TEXT
    assert str(InvalidInput("plain")) == "plain"


def test_a_wish_whose_journal_could_not_be_read_again_is_not_taken(tmp_path: Path) -> None:
    wish = DesiredState(revision=1, issued_ms=0, active=None, rollout="\x01" * 60_000)
    with pytest.raises(InvalidMessage, match="rollout"):
        codec.decode(DesiredState, msgspec.msgpack.encode(wish))
    longest = DesiredState(revision=1, issued_ms=0, active=None, rollout="\x01" * 64)
    journal = Journal(tmp_path)
    journal.write(Entry(desired=codec.decode(DesiredState, codec.encode(longest))))
    assert journal.read().desired == longest


@pytest.mark.parametrize("change", [{"starts": -1}, {"proven": "../x"}, {"reason": "x" * 513}])
def test_a_journal_that_nobody_wrote_asks_for_recovery(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    (tmp_path / FILE).write_bytes(msgspec.json.encode({"v": 1, "state": "committed", **change}))
    assert Journal(tmp_path).read().state == "unreadable"


def test_a_request_for_a_certificate_of_another_version_is_refused() -> None:
    request = x509.load_pem_x509_csr(csr(new_key(), "watch-01").encode())
    whole = request.public_bytes(Encoding.DER).replace(b"\x02\x01\x00", b"\x02\x01\x01", 1)
    text = base64.encodebytes(whole).decode()
    pem = f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"
    with pytest.raises(ValueError, match="no request for a certificate"):
        enrolling.checked_request(pem, "watch-01")


def test_a_proposal_that_has_no_canonical_form_is_refused(tmp_path: Path) -> None:
    proposed = Metadata(Root(version=1)).to_dict()
    proposed["signed"]["x"] = 0.5
    path = tmp_path / "proposal.json"
    path.write_bytes(msgspec.json.encode(proposed))
    with pytest.raises(InvalidConfiguration, match="is not a proposal"):
        proposal.read(path, Root)


@pytest.mark.parametrize("digest", ["../../etc", "/etc/passwd", "", "A" * 64])
def test_a_pointer_names_slots_only(tmp_path: Path, digest: str) -> None:
    slots = Slots(tmp_path)
    (tmp_path / POINTER).write_bytes(msgspec.json.encode({"v": 1, "active": digest}))
    assert slots.pointer() is None


def test_golden_rows_that_are_no_arrays_are_refused() -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as opened:
        for name in ("samples", "features", "expected.x"):
            opened.writestr(name, b"no array")
    with pytest.raises(InvalidBundle, match="not float32"):
        golden.unpack(content.getvalue())


def test_the_id_of_a_refused_frame_is_told_even_where_it_is_negative() -> None:
    assert frames.request_id(msgspec.msgpack.encode(["nothing", -7])) == -7


def test_a_damaged_line_of_the_prediction_log_costs_itself_only(tmp_path: Path) -> None:
    line = {
        "at_us": 1, "token": "t", "first": 0, "rows": 2, "model": "m", "version": "1.0.0",
        "digest": "d", "target": "t", "runtime": "r", "arm": "incumbent",
    }  # fmt: skip
    good = msgspec.json.encode(line)
    bad = good.replace(b'"m"', b'"\xff"')
    (tmp_path / prediction_log.NAME).write_bytes(bad + b"\n" + b"[" * 5000 + b"\n" + good + b"\n")
    found = prediction_log.find(tmp_path, "t-1")
    assert found is not None
    assert found.model == "m"


def test_edges_beyond_float32_are_refused_without_a_warning() -> None:
    with pytest.raises(ValueError, match="float32"):
        Channel(name="a", kind="input", edges=[float("inf")] * 2, counts=[0] * 4)


def test_a_signalling_nan_is_a_missing_value() -> None:
    field = Number(name="size", unit="kg", lsb=0.25, low=0, high=100, null_policy="keep")
    values = np.frombuffer(struct.pack("<I", 0x7FA00000), "<f4")
    assert columns.check([field], {"size": values})["size"].missing.tolist() == [True]


@pytest.mark.parametrize(
    "change", [{"bias": [1e300]}, {"scale": [1e-300]}, {"mean": [-1e31]}, {"weights": [[1e31]]}]
)
def test_a_baseline_whose_logits_overflow_is_refused(change: dict[str, Any]) -> None:
    plain = {"features": ["a"], "mean": [0.0], "scale": [1.0], "weights": [[1.0]], "bias": [0.0]}
    data = msgspec.json.encode({"v": 1} | plain | change)
    with pytest.raises(InvalidBundle, match=r"at (most|least)"):
        baseline.parse(data)


def test_a_baseline_answers_finite_logits_for_the_largest_features() -> None:
    largest = baseline.LogisticBaseline(
        features=["a"], mean=[1e30], scale=[1e-30], weights=[[1e30, -1e30]], bias=[0.0, 0.0]
    )
    rows = np.array([[3e38], [-3e38]], np.float32)
    assert np.isfinite(largest.logits(rows, ["a"])).all()


@pytest.mark.parametrize(
    "change",
    [
        {"events": {"parcels": {"times_us": [2**63]}}},
        {"request": {}},
        {"request": {"at": ["x"]}},
        {"request": {"at": [2**63]}},
        {"events": {"parcels": {"sequence": []}}},
    ],
)
def test_a_golden_log_that_does_not_fit_its_features_is_refused(change: dict[str, Any]) -> None:
    stamps = {"times_us": [BEGIN], "sequence": [1], "arrived_us": [BEGIN]}
    event = stamps | {"fields": {"place": ["p"], "kind": [None], "weight": [1.0]}}
    plain: dict[str, Any] = {"at": [BEGIN], "place": ["p"], "size": [1.0]}
    event |= change.get("events", {}).get("parcels", {})
    content = {"events": {"parcels": event}, "request": change.get("request", plain)}
    arrays = {"log": np.frombuffer(msgspec.msgpack.encode(content), np.uint8)}
    data = io.BytesIO()
    np.savez(data, allow_pickle=False, features=np.zeros((1, 7), np.float32), **arrays)
    with pytest.raises(SerinusError, match="golden"):
        golden.served(DEFINITION, golden.unpack(data.getvalue()).raw)
