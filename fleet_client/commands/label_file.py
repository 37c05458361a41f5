"""Labels as a file: CSV or JSON lines, read in pieces."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_core.errors import InvalidConfiguration
from fleet_client.client import Json
from fleet_client.commands.options import moment_of

COLUMNS = ("prediction_id", "label", "known_at")
SUFFIXES = (".csv", ".jsonl")


def read(file: Path) -> Iterator[Json]:
    """Each label of a file.

    CSV has the columns ``prediction_id``, ``label`` and, if wanted, ``known_at`` (ISO 8601, or
    milliseconds since 1970); an empty label takes back what was told before. JSON lines are what
    the API takes.

    Raises:
        InvalidConfiguration: no such file, another kind of file, or a line that is no label.
    """
    if file.suffix not in SUFFIXES:
        raise InvalidConfiguration(f"{file} is neither {' nor '.join(SUFFIXES)}")
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            yield from (_csv(file, lines) if file.suffix == ".csv" else _json(file, lines))
    except OSError as error:
        raise InvalidConfiguration(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidConfiguration(f"{file} is not UTF-8") from error


def _csv(file: Path, lines: Any) -> Iterator[Json]:
    rows = csv.DictReader(lines)
    missing = {"prediction_id", "label"} - set(rows.fieldnames or [])
    if missing:
        raise InvalidConfiguration(f"{file} has no column {', '.join(sorted(missing))}")
    for number, row in enumerate(rows, 2):
        told: Json = {"prediction_id": row["prediction_id"], "label": row["label"] or None}
        if row.get("known_at"):
            told["known_ms"] = _moment(file, number, row["known_at"])
        yield told


def _json(file: Path, lines: Any) -> Iterator[Json]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            told = json.loads(line)
        except ValueError as error:
            raise InvalidConfiguration(f"{file}, line {number} is not JSON: {error}") from error
        if not isinstance(told, dict):
            raise InvalidConfiguration(f"{file}, line {number} is not an object")
        yield told


def _moment(file: Path, number: int, text: str) -> int:
    if text.isdigit():
        return int(text)
    try:
        return moment_of(text)
    except InvalidConfiguration as error:
        raise InvalidConfiguration(f"{file}, line {number}: {error}") from error
