"""The fleet server in full."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Bring the schema up to this revision."""
    op.create_table(
        "acknowledgements",
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("consumer", sa.String(length=256), nullable=False),
        sa.Column("major", sa.Integer(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("model", "consumer", "major"),
    )
    op.create_table(
        "appeals",
        sa.Column("appeal", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("prediction", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("claimed", sa.String(length=256), nullable=True),
        sa.Column("contact", sa.Text(), nullable=False),
        sa.Column("opened_ms", sa.BigInteger(), nullable=False),
        sa.Column("opened_by", sa.String(length=64), nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("label", sa.String(length=256), nullable=True),
        sa.Column("decided_ms", sa.BigInteger(), nullable=True),
        sa.Column("decided_by", sa.String(length=64), nullable=True),
        sa.Column("explanation", sa.Text(), nullable=False),
        sa.Column("explained_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("appeal"),
    )
    with op.batch_alter_table("appeals", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_appeals_prediction"), ["prediction"], unique=False)

    op.create_table(
        "approvals",
        sa.Column("rollout", sa.String(length=32), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "stage", "person"),
    )
    op.create_table(
        "audit",
        sa.Column("entry", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=256), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("entry"),
    )
    with op.batch_alter_table("audit", schema=None) as batch_op:
        batch_op.create_index("audit_of_subject", ["subject", "entry"], unique=False)

    op.create_table(
        "cursors",
        sa.Column("reader", sa.String(length=32), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("reader"),
    )
    op.create_table(
        "days",
        sa.Column("start_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("arm", sa.String(length=16), nullable=False),
        sa.Column("slice", sa.String(length=512), nullable=False),
        sa.Column("windows", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("right", sa.BigInteger(), nullable=False),
        sa.Column("wrong", sa.BigInteger(), nullable=False),
        sa.Column("late", sa.BigInteger(), nullable=False),
        sa.Column("dropped", sa.BigInteger(), nullable=False),
        sa.Column("agree", sa.BigInteger(), nullable=False),
        sa.Column("disagree", sa.BigInteger(), nullable=False),
        sa.Column("both_right", sa.BigInteger(), nullable=False),
        sa.Column("only_active_right", sa.BigInteger(), nullable=False),
        sa.Column("only_shadow_right", sa.BigInteger(), nullable=False),
        sa.Column("both_wrong", sa.BigInteger(), nullable=False),
        sa.Column("latency", sa.LargeBinary(), nullable=False),
        sa.Column("counts", sa.LargeBinary(), nullable=False),
        sa.Column("causes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("start_ms", "digest", "arm", "slice"),
    )
    op.create_table(
        "declared_consumers",
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("consumer", sa.String(length=256), nullable=False),
        sa.Column("owner", sa.String(length=256), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("declared_ms", sa.BigInteger(), nullable=False),
        sa.Column("declared_by", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("model", "consumer"),
    )
    op.create_table(
        "deliveries",
        sa.Column("delivery", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("webhook", sa.String(length=64), nullable=False),
        sa.Column("message", sa.String(length=64), nullable=False),
        sa.Column("event", sa.Integer(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("due_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_ms", sa.BigInteger(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("delivery"),
    )
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.create_index("deliveries_due", ["state", "due_ms"], unique=False)
        batch_op.create_index("deliveries_of_webhook", ["webhook", "delivery"], unique=False)

    op.create_table(
        "device_facts",
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("site", sa.String(length=64), nullable=False),
        sa.Column("retired", sa.Boolean(), nullable=False),
        sa.Column("set_ms", sa.BigInteger(), nullable=False),
        sa.Column("set_by", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("device"),
    )
    with op.batch_alter_table("device_facts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_device_facts_site"), ["site"], unique=False)

    op.create_table(
        "device_tags",
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("tag", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("device", "tag"),
    )
    with op.batch_alter_table("device_tags", schema=None) as batch_op:
        batch_op.create_index("devices_of_tag", ["tag", "device"], unique=False)

    op.create_table(
        "drift_periods",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("arm", sa.String(length=16), nullable=False),
        sa.Column("period", sa.BigInteger(), nullable=False),
        sa.Column("slice", sa.String(length=512), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("right", sa.BigInteger(), nullable=False),
        sa.Column("wrong", sa.BigInteger(), nullable=False),
        sa.Column("counts", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "arm", "period", "slice"),
    )
    with op.batch_alter_table("drift_periods", schema=None) as batch_op:
        batch_op.create_index("drift_periods_by_number", ["period"], unique=False)

    op.create_table(
        "drift_policies",
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("fallback", sa.JSON(), nullable=False),
        sa.Column("set_ms", sa.BigInteger(), nullable=False),
        sa.Column("set_by", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("model"),
    )
    op.create_table(
        "drift_responses",
        sa.Column("response", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("alert", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("response"),
    )
    with op.batch_alter_table("drift_responses", schema=None) as batch_op:
        batch_op.create_index("responses_to_alert", ["alert"], unique=False)

    op.create_table(
        "groups",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("query", sa.Text(), nullable=False),
        sa.Column("set_ms", sa.BigInteger(), nullable=False),
        sa.Column("set_by", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "hours",
        sa.Column("start_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("arm", sa.String(length=16), nullable=False),
        sa.Column("slice", sa.String(length=512), nullable=False),
        sa.Column("windows", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("right", sa.BigInteger(), nullable=False),
        sa.Column("wrong", sa.BigInteger(), nullable=False),
        sa.Column("late", sa.BigInteger(), nullable=False),
        sa.Column("dropped", sa.BigInteger(), nullable=False),
        sa.Column("agree", sa.BigInteger(), nullable=False),
        sa.Column("disagree", sa.BigInteger(), nullable=False),
        sa.Column("both_right", sa.BigInteger(), nullable=False),
        sa.Column("only_active_right", sa.BigInteger(), nullable=False),
        sa.Column("only_shadow_right", sa.BigInteger(), nullable=False),
        sa.Column("both_wrong", sa.BigInteger(), nullable=False),
        sa.Column("latency", sa.LargeBinary(), nullable=False),
        sa.Column("counts", sa.LargeBinary(), nullable=False),
        sa.Column("causes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("start_ms", "digest", "arm", "slice"),
    )
    op.create_table(
        "idempotency",
        sa.Column("identity", sa.String(length=64), nullable=False),
        sa.Column("request", sa.String(length=64), nullable=False),
        sa.Column("begun_ms", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("content_type", sa.String(length=128), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("identity"),
    )
    with op.batch_alter_table("idempotency", schema=None) as batch_op:
        batch_op.create_index("idempotency_by_age", ["begun_ms"], unique=False)

    op.create_table(
        "incident_entries",
        sa.Column("incident", sa.Integer(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.String(length=256), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("incident", "place"),
    )
    op.create_table(
        "incidents",
        sa.Column("incident", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=256), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("opened_ms", sa.BigInteger(), nullable=False),
        sa.Column("began_ms", sa.BigInteger(), nullable=False),
        sa.Column("mitigated_ms", sa.BigInteger(), nullable=True),
        sa.Column("resolved_ms", sa.BigInteger(), nullable=True),
        sa.Column("resolved_by", sa.String(length=64), nullable=True),
        sa.Column("owner", sa.String(length=64), nullable=True),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("incident"),
    )
    with op.batch_alter_table("incidents", schema=None) as batch_op:
        batch_op.create_index("incidents_of_cause", ["kind", "subject", "state"], unique=False)

    op.create_table(
        "label_delays",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("bin", sa.Integer(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "bin"),
    )
    op.create_table(
        "label_figures",
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("what", sa.String(length=16), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("model", "what"),
    )
    op.create_table(
        "labels",
        sa.Column("prediction", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(length=256), nullable=True),
        sa.Column("known_ms", sa.BigInteger(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("told_by", sa.String(length=64), nullable=False),
        sa.Column("latest", sa.Boolean(), nullable=False),
        sa.Column("joined", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("prediction", "revision"),
    )
    with op.batch_alter_table("labels", schema=None) as batch_op:
        batch_op.create_index("labels_waiting", ["joined", "latest", "received_ms"], unique=False)

    op.create_table(
        "leadership",
        sa.Column("one", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(length=128), nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.Column("renewed_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("one"),
    )
    op.create_table(
        "outcomes",
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("policy", sa.String(length=16), nullable=False),
        sa.Column("arm", sa.String(length=16), nullable=False),
        sa.Column("slice", sa.String(length=160), nullable=False),
        sa.Column("label", sa.String(length=256), nullable=False),
        sa.Column("predicted", sa.String(length=256), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", "digest", "policy", "arm", "slice", "label", "predicted"),
    )
    op.create_table(
        "predictions",
        sa.Column("prediction", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("target", sa.String(length=64), nullable=False),
        sa.Column("arm", sa.String(length=16), nullable=False),
        sa.Column("policy", sa.String(length=16), nullable=False),
        sa.Column("slices", sa.JSON(), nullable=False),
        sa.Column("predicted", sa.String(length=256), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("told_by", sa.String(length=64), nullable=False),
        sa.Column("sample", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("prediction"),
    )
    with op.batch_alter_table("predictions", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_predictions_received_ms"), ["received_ms"], unique=False
        )
        batch_op.create_index("predictions_with_sample", ["device", "received_ms"], unique=False)

    op.create_table(
        "production_history",
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("until_ms", sa.BigInteger(), nullable=True),
        sa.Column("rollout", sa.String(length=32), nullable=True),
        sa.Column("verdict", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("model", "since_ms"),
    )
    op.create_table(
        "retrain_policies",
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("every_days", sa.Float(), nullable=True),
        sa.Column("on_drift", sa.Boolean(), nullable=False),
        sa.Column("cooldown_days", sa.Float(), nullable=False),
        sa.Column("automation", sa.String(length=16), nullable=False),
        sa.Column("set_ms", sa.BigInteger(), nullable=False),
        sa.Column("set_by", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("model"),
    )
    op.create_table(
        "retrain_requests",
        sa.Column("request", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("cause", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("alert", sa.Integer(), nullable=True),
        sa.Column("automation", sa.String(length=16), nullable=False),
        sa.Column("asked_ms", sa.BigInteger(), nullable=False),
        sa.Column("asked_by", sa.String(length=64), nullable=False),
        sa.Column("incumbent", sa.String(length=64), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(length=64), nullable=True),
        sa.Column("lease", sa.String(length=64), nullable=True),
        sa.Column("leased_until_ms", sa.BigInteger(), nullable=True),
        sa.Column("progress", sa.Text(), nullable=False),
        sa.Column("finished_ms", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("release", sa.String(length=128), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=True),
        sa.Column("gates", sa.JSON(), nullable=False),
        sa.Column("rollout", sa.String(length=32), nullable=True),
        sa.PrimaryKeyConstraint("request"),
    )
    with op.batch_alter_table("retrain_requests", schema=None) as batch_op:
        batch_op.create_index("retraining_of_model", ["model", "state"], unique=False)

    op.create_table(
        "runs",
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("from_ms", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("to_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("device", "from_ms"),
    )
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.create_index("runs_at", ["digest", "from_ms", "to_ms"], unique=False)

    op.create_table(
        "webhooks",
        sa.Column("webhook", sa.String(length=64), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.String(length=128), nullable=False),
        sa.Column("kinds", sa.JSON(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=64), nullable=False),
        sa.Column("disabled_ms", sa.BigInteger(), nullable=True),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("webhook"),
    )
    op.drop_table("periods")
    with op.batch_alter_table("cells", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("scored", sa.BigInteger(), server_default="0", nullable=False)
        )
        batch_op.add_column(
            sa.Column("unusual", sa.BigInteger(), server_default="0", nullable=False)
        )

    with op.batch_alter_table("desired", schema=None) as batch_op:
        batch_op.add_column(sa.Column("attempts", sa.Integer(), server_default="1", nullable=False))
        batch_op.create_index("desired_unsent", ["confirmed_sent", "sent_ms"], unique=False)

    with op.batch_alter_table("devices", schema=None) as batch_op:
        batch_op.add_column(sa.Column("trouble", sa.Text(), server_default="", nullable=False))
        batch_op.create_index("devices_in_state", ["update_state", "device"], unique=False)

    with op.batch_alter_table("drift", schema=None) as batch_op:
        batch_op.add_column(sa.Column("season", sa.LargeBinary(), nullable=True))

    with op.batch_alter_table("epochs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("received", sa.LargeBinary(), nullable=True))

    with op.batch_alter_table("tokens", schema=None) as batch_op:
        batch_op.add_column(sa.Column("expires_ms", sa.BigInteger(), nullable=True))
