"""Logs on disk: the same log whole and in pieces; what does not fit is refused by its name."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv, parquet

from converters.data import log_folder, tables
from converters.data.log_folder import LogFolder, Piece
from edge_core.errors import InvalidInput
from edge_core.features import columns
from edge_core.features.logs import Events, Log
from edge_core.features.over_time import MeanWithin
from edge_core.features.request_definition import RequestDefinition
from edge_core.features.request_evaluation import RequestEvaluator
from edge_core.features.requests import Category, Number, Request, Stream, Time

HOUR_US = 3_600_000_000
DEFINITION = RequestDefinition(
    request=Request(
        fields=[
            Time(name="at"),
            Category(name="shop"),
            Number(name="amount", unit="EUR", lsb=0.01, low=0, high=1000, null_policy="keep"),
        ],
        time="at",
    ),
    streams=(
        Stream(
            name="sales",
            fields=[
                Category(name="shop"),
                Number(name="price", unit="EUR", lsb=0.01, low=0, high=1000),
            ],
        ),
    ),
    features=(
        MeanWithin(
            name="price_1h",
            stream="sales",
            by={"shop": "shop"},
            field="price",
            within_s=3600,
            default=0.0,
        ),
    ),
)


def log(events: int = 400, requests: int = 300, *, ties: bool = False) -> Log:
    """Sales and questions of a day, in order of arrival."""
    draw = np.random.default_rng(5)
    step = HOUR_US if ties else 1
    arrived = np.sort(draw.integers(0, 24 * HOUR_US // step, events)) * step
    at = np.sort(draw.integers(0, 24 * HOUR_US // step, requests)) * step
    return Log(
        {
            "sales": Events(
                arrived - draw.integers(0, HOUR_US // 8, events),
                np.arange(events),
                arrived,
                {
                    "shop": draw.choice(["north", "south"], events).tolist(),
                    "price": draw.uniform(0, 100, events).astype(np.float32),
                },
            )
        },
        {
            "at": at,
            "shop": draw.choice(["north", "south"], requests).tolist(),
            "amount": np.where(draw.random(requests) < 0.1, np.nan, 5).astype(np.float32),
        },
    )


def features(pieces: list[Piece]) -> bytes:
    evaluator = RequestEvaluator(DEFINITION)
    return b"".join(evaluator.replay(*piece.log).tobytes() for piece in pieces)


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 500), ties=st.booleans(), stop=st.integers(0, 700))
def test_pieces_give_what_the_whole_log_gives(
    rows: int, ties: bool, stop: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log_folder.write(folder, DEFINITION, log(ties=ties))
    opened = LogFolder(folder, DEFINITION)
    pieces = list(opened.pieces(rows=rows))
    assert features(pieces) == features([opened.read()])
    assert pieces[-1].taken == {"requests": 300, "events/sales": 400}
    begun = pieces[: min(stop, len(pieces) - 1) + 1]
    rest = opened.pieces(begun[-1].taken, rows=rows)
    assert features([*begun, *rest]) == features(pieces)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    given = log()
    numbers = [f"r{place}" for place in range(300)]
    log_folder.write(tmp_path, DEFINITION, given, {"id": numbers})
    found = LogFolder(tmp_path, DEFINITION, also=["id"]).read()
    assert found.also["id"].to_pylist() == numbers
    assert found.log.request["shop"] == given.request["shop"]
    np.testing.assert_array_equal(found.log.request["amount"], given.request["amount"])
    for mine, theirs in zip(found.log.events["sales"][:3], given.events["sales"][:3], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_log_in_any_order_is_written_in_order(tmp_path: Path) -> None:
    given = log(ties=True)
    mixed = np.random.default_rng(1).permutation(300)
    request = columns.taken(given.request, mixed)
    sales = given.events["sales"].only(np.random.default_rng(2).permutation(400))
    log_folder.write(tmp_path, DEFINITION, Log({"sales": sales}, request), {"row": mixed})
    opened = LogFolder(tmp_path, DEFINITION, also=["row"])
    whole = opened.read()
    at = np.asarray(request["at"])
    order = np.argsort(at, kind="stable")
    assert whole.also["row"].to_pylist() == mixed[order].tolist()
    assert features(list(opened.pieces(rows=50))) == features([whole])
    expected = RequestEvaluator(DEFINITION).replay(*Log({"sales": sales}, request))
    assert features([whole]) == expected[order].tobytes()


def test_csv_and_folders_of_files_say_the_same(tmp_path: Path) -> None:
    log_folder.write(tmp_path / "one", DEFINITION, log())
    sales = parquet.read_table(tmp_path / "one/events/sales.parquet")
    (tmp_path / "two/events/sales").mkdir(parents=True)
    for place in range(4):
        part = sales.slice(place * 100, 100)
        parquet.write_table(part, tmp_path / f"two/events/sales/{place}.parquet")
    requests = parquet.read_table(tmp_path / "one/requests.parquet")
    csv.write_csv(requests, tmp_path / "two/requests.csv")
    whole = LogFolder(tmp_path / "one", DEFINITION)
    parts = LogFolder(tmp_path / "two", DEFINITION)
    assert features(list(parts.pieces(rows=70))) == features([whole.read()])


def rewritten(folder: Path, name: str, change: Any) -> LogFolder:
    log_folder.write(folder, DEFINITION, log())
    path = folder / name
    parquet.write_table(change(parquet.read_table(path)), path)
    return LogFolder(folder, DEFINITION)


def with_column(name: str, column: Any, metadata: dict[bytes, bytes] | None = None) -> Any:
    def change(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        field = pa.field(name, column.type, metadata=metadata)
        return table.set_column(place, field, column)

    return change


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("requests.parquet", lambda t: t.drop_columns(["shop"]), "no column shop"),
        (
            "requests.parquet",
            with_column("shop", pa.array(range(300))),
            "shop is int64; needed is a text",
        ),
        (
            "requests.parquet",
            with_column("amount", pa.array(["5"] * 300)),
            "amount is string; needed is a number",
        ),
        (
            "requests.parquet",
            with_column("at", pa.array(range(300), pa.timestamp("us"))),
            "with its time zone",
        ),
        (
            "events/sales.parquet",
            with_column("price", pa.array([1.0] * 400), {b"unit": b"USD"}),
            "price is in USD, the definition has EUR",
        ),
    ],
)
def test_what_does_not_fit_is_named_before_anything_is_read(
    name: str, change: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=said):
        rewritten(tmp_path, name, change)


def test_an_order_that_is_wrong_is_refused_in_pieces(tmp_path: Path) -> None:
    found = rewritten(
        tmp_path, "events/sales.parquet", lambda table: table.take(pa.array(range(399, -1, -1)))
    )
    with pytest.raises(InvalidInput, match=r"sales.parquet is not in order of arrival; sort it"):
        list(found.pieces())


def test_a_missing_moment_is_refused(tmp_path: Path) -> None:
    column = pa.array([None, *range(299)], pa.int64())
    found = rewritten(tmp_path, "requests.parquet", with_column("at", column))
    with pytest.raises(InvalidInput, match=r"requests.parquet, column at: a moment is missing"):
        found.read()


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    log_folder.write(tmp_path, DEFINITION, log())
    path = tmp_path / "events/sales.parquet"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InvalidInput, match=r"sales.parquet cannot be read"):
        LogFolder(tmp_path, DEFINITION)


def test_a_file_that_is_damaged_inside_is_refused(tmp_path: Path) -> None:
    log_folder.write(tmp_path, DEFINITION, log())
    path = tmp_path / "events/sales.parquet"
    data = bytearray(path.read_bytes())
    data[4:2000] = bytes(1996)
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match=r"sales.parquet"):
        list(LogFolder(tmp_path, DEFINITION).pieces())


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["2013-01-01T00:00:00,north,5"], "column at"),
        (["2013-01-01T00:00:00Z,north,many"], "requests.csv"),
    ],
)
def test_text_that_is_no_value_is_refused(lines: list[str], said: str, tmp_path: Path) -> None:
    log_folder.write(tmp_path, DEFINITION, log())
    (tmp_path / "requests.parquet").unlink()
    (tmp_path / "requests.csv").write_text("\n".join(["at,shop,amount", *lines]))
    with pytest.raises(InvalidInput, match=said):
        LogFolder(tmp_path, DEFINITION).read()


def test_a_text_is_missing_only_where_its_field_is_empty(tmp_path: Path) -> None:
    log_folder.write(tmp_path, DEFINITION, log())
    (tmp_path / "requests.parquet").unlink()
    (tmp_path / "requests.csv").write_bytes(
        b"\xef\xbb\xbfat,shop,amount,id\r\n"
        b'1,NA,1.5,nan\r\n2,null, 2 ,\r\n3,"",NA,""\r\n4,,,"a, ""b"""\r\n'
    )
    piece = LogFolder(tmp_path, DEFINITION, ["id"]).read()
    assert piece.log.request["shop"] == ["NA", "null", "", None]
    assert piece.also["id"].to_pylist() == ["nan", None, "", 'a, "b"']
    np.testing.assert_array_equal(piece.log.request["amount"], [1.5, 2, np.nan, np.nan])


def test_a_text_may_have_lines_wherever_it_stands_in_a_file(tmp_path: Path) -> None:
    ids = [f"{place}\n{'x' * (place % 50)}" for place in range(60_000)]
    (tmp_path / "t.csv").write_text(
        "at,id\n" + "".join(f'{place},"{one}"\n' for place, one in enumerate(ids))
    )
    table = tables.Table(tmp_path / "t.csv", [Time(name="at")], ["id"])
    found = [one for batch in table.pieces() for one in batch.column("id").to_pylist()]
    assert found == ids


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    def twice(name: str) -> Any:
        return lambda table: pa.Table.from_arrays(
            [*table.columns, table.column(name)], names=[*table.column_names, name]
        )

    with pytest.raises(InvalidInput, match=r"sales.parquet has several columns called price"):
        rewritten(tmp_path, "events/sales.parquet", twice("price"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/t.csv").write_text("at,id,id\n1,a,b\n")
    with pytest.raises(InvalidInput, match=r"t.csv has several columns called id"):
        tables.Table(tmp_path / "other", [Time(name="at")], ["id"])
    assert tables.Table(tmp_path / "other", [Time(name="at")]).rows == 1


def test_what_may_be_one_log_twice_is_refused(tmp_path: Path) -> None:
    log_folder.write(tmp_path, DEFINITION, log())
    table = parquet.read_table(tmp_path / "requests.parquet")
    csv.write_csv(table, tmp_path / "requests.csv")
    with pytest.raises(InvalidInput, match=r"requests\.parquet and requests\.csv; leave one"):
        LogFolder(tmp_path, DEFINITION)
    (tmp_path / "requests").mkdir()
    for name in ("requests.csv", "requests.parquet"):
        (tmp_path / name).rename(tmp_path / "requests" / name)
    with pytest.raises(InvalidInput, match="perhaps the same rows twice"):
        LogFolder(tmp_path, DEFINITION)


def test_a_missing_stream_is_named(tmp_path: Path) -> None:
    log_folder.write(tmp_path, DEFINITION, log())
    (tmp_path / "events/sales.parquet").unlink()
    with pytest.raises(InvalidInput, match=r"events/sales is missing"):
        LogFolder(tmp_path, DEFINITION)


@pytest.mark.parametrize("kind", [np.int32, np.uint32, np.float64, np.bool_])
def test_numbers_of_any_type_are_written_as_the_evaluator_takes_them(
    kind: type, tmp_path: Path
) -> None:
    amounts = np.array([0, 1, 2**24 + 1, 0.1], kind)
    at = np.arange(4).astype(np.uint32)
    given = Log(log().events, {"at": at, "shop": ["north"] * 4, "amount": amounts})
    log_folder.write(tmp_path, DEFINITION, given)
    found = LogFolder(tmp_path, DEFINITION).read().log.request
    np.testing.assert_array_equal(found["amount"], amounts.astype(np.float32))
    np.testing.assert_array_equal(found["at"], at)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"amount": ["a"] * 300}, "field amount"),
        ({"amount": np.zeros(299)}, "different lengths"),
        ({"shop": np.arange(300)}, "field shop"),
        ({"at": np.full(300, 0.5)}, "field at"),
        ({"at": None}, "field at is missing; there are shop, amount"),
    ],
)
def test_what_cannot_be_written_is_named(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    given = log()
    request = {k: v for k, v in (given.request | changes).items() if v is not None}  # type: ignore[operator]
    with pytest.raises(InvalidInput, match=words):
        log_folder.write(tmp_path, DEFINITION, Log(given.events, request))


def test_events_of_an_unknown_stream_are_not_left_out(tmp_path: Path) -> None:
    given = log()
    with pytest.raises(InvalidInput, match="unknown stream sale; the definition has sales"):
        log_folder.write(tmp_path, DEFINITION, Log({"sale": given.events["sales"]}, given.request))


def test_what_was_read_does_not_stay_in_memory(tmp_path: Path) -> None:
    rows = 1_500_000
    draw = np.random.default_rng(1)
    path = tmp_path / "table.parquet"
    with parquet.ParquetWriter(path, pa.schema([("at", pa.int64())])) as out:
        for _ in range(15):
            out.write_table(pa.table({"at": draw.integers(0, 2**60, rows // 15)}))
    table = tables.Table(path, [Time(name="at")])
    before, most, read = pa.total_allocated_bytes(), 0, 0
    for batch in table.pieces():
        read += batch.num_rows
        most = max(most, pa.total_allocated_bytes() - before)
    assert read == rows
    assert path.stat().st_size > 10_000_000
    assert most < 5_000_000


def test_a_later_beginning_skips_what_it_can(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"at": range(1000)}), tmp_path / "a.parquet", row_group_size=64)
    parquet.write_table(pa.table({"at": range(1000, 1500)}), tmp_path / "b.parquet")
    table = tables.Table(tmp_path, [Time(name="at")])
    assert table.rows == 1500
    for skip in (0, 1, 63, 64, 999, 1000, 1001, 1499, 1500, 9000):
        found = [
            value for batch in table.pieces(skip=skip) for value in batch.column(0).to_pylist()
        ]
        assert found == list(range(min(skip, 1500), 1500))
