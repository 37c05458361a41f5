"""Label files as people have them."""

from pathlib import Path

import pytest

from edge_core.errors import InvalidConfiguration
from fleet_client.commands import label_file


def write(tmp_path: Path, name: str, text: str) -> Path:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return file


def test_csv_with_times_and_labels_that_are_taken_back(tmp_path: Path) -> None:
    text = "prediction_id,label,known_at\na,still,2026-11-01T12:00:00Z\nb,,1700000000000\nc,tilt,\n"
    assert list(label_file.read(write(tmp_path, "labels.csv", text))) == [
        {"prediction_id": "a", "label": "still", "known_ms": 1_793_534_400_000},
        {"prediction_id": "b", "label": None, "known_ms": 1_700_000_000_000},
        {"prediction_id": "c", "label": "tilt"},
    ]


def test_json_lines_are_what_the_api_takes(tmp_path: Path) -> None:
    text = '{"prediction_id": "a", "label": "still"}\n\n{"prediction_id": "b", "label": null}\n'
    found = list(label_file.read(write(tmp_path, "labels.jsonl", text)))
    assert [entry["label"] for entry in found] == ["still", None]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("labels.txt", "", "neither .csv nor .jsonl"),
        ("labels.csv", "prediction,label\na,b\n", "no column prediction_id"),
        ("labels.csv", "prediction_id,label,known_at\na,b,yesterday\n", "line 2: 'yesterday'"),
        ("labels.jsonl", '{"a": 1}\n[]\n', "line 2 is not an object"),
        ("labels.jsonl", "{\n", "line 1 is not JSON"),
    ],
)
def test_what_is_no_label_file_is_refused_with_its_line(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=said):
        list(label_file.read(write(tmp_path, name, text)))


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="cannot read"):
        list(label_file.read(tmp_path / "labels.csv"))
