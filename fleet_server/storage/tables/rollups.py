"""What windows add up to by hour and by day, over all devices."""

from sqlalchemy import BigInteger, Column, LargeBinary, String, Table

from fleet_server.storage.tables.metadata import metadata

FIGURES = (
    "windows",
    "rows",
    "errors",
    "right",
    "wrong",
    "late",
    "dropped",
    "agree",
    "disagree",
    "both_right",
    "only_active_right",
    "only_shadow_right",
    "both_wrong",
)
"""Columns that are plain counts."""
ARRAYS = ("latency", "counts", "causes")
"""Columns that are packed int64: latency by power-of-two bin of microseconds, counts by channel as
in ``periods``, and rows of the baseline by cause in the order of FallbackCounts."""
LABELLED = ("right_bins", "wrong_bins")
"""Packed int64 as well: labelled rows by bin of confidence; none before they were kept."""


def _of(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("start_ms", BigInteger, primary_key=True, autoincrement=False),
        Column("digest", String(64), primary_key=True),
        Column("arm", String(16), primary_key=True),
        Column("slice", String(512), primary_key=True),
        *(Column(figure, BigInteger, nullable=False) for figure in FIGURES),
        *(Column(array, LargeBinary, nullable=False) for array in ARRAYS),
        *(Column(array, LargeBinary) for array in LABELLED),
    )


hours = _of("hours")
"""Kept for some months."""

days = _of("days")
"""Kept for good."""
