"""Costs by day and target, prices, budgets, labelled rows by confidence."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

COUNTS = (
    "predictions",
    "cached",
    "fallbacks",
    "shadowed",
    "cpu_us",
    "shadow_cpu_us",
    "sent_bytes",
    "span_ms",
)


def upgrade() -> None:
    """Bring the schema up to this revision."""
    op.create_table(
        "budgets",
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("span", sa.String(length=16), nullable=False),
        sa.Column("amount", sa.Float(), nullable=False),
        sa.Column("set_ms", sa.BigInteger(), nullable=False),
        sa.Column("set_by", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("model", "span"),
    )
    op.create_table(
        "prices",
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("device_second", sa.Float(), nullable=True),
        sa.Column("megabyte", sa.Float(), nullable=True),
        sa.Column("label", sa.Float(), nullable=True),
        sa.Column("currency", sa.String(length=8), nullable=False),
        sa.Column("set_ms", sa.BigInteger(), nullable=False),
        sa.Column("set_by", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("day"),
    )
    op.add_column("tokens", sa.Column("models", sa.JSON(), server_default="[]", nullable=False))
    for table in ("hours", "days"):
        op.add_column(table, sa.Column("right_bins", sa.LargeBinary(), nullable=True))
        op.add_column(table, sa.Column("wrong_bins", sa.LargeBinary(), nullable=True))
    _costs_by_day()


def _costs_by_day() -> None:
    """What was counted by device is kept as of day 0, on the device's target."""
    op.create_table(
        "costs_by_day",
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("target", sa.String(length=64), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in (*COUNTS, "labels")),
        sa.PrimaryKeyConstraint("day", "digest", "target"),
    )
    sums = ", ".join(f"sum(c.{name})" for name in COUNTS)
    op.execute(
        f"INSERT INTO costs_by_day (day, digest, target, {', '.join(COUNTS)}, labels) "
        f"SELECT 0, c.digest, coalesce(d.target, ''), {sums}, 0 FROM costs c "
        "LEFT JOIN devices d ON d.device = c.device GROUP BY c.digest, coalesce(d.target, '')"
    )
    op.drop_table("costs")
    op.rename_table("costs_by_day", "costs")
