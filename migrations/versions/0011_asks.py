"""Add tables for asks of rollouts, their totals by run, and charges by use; readings get requests by HTTP status.

Revision: 0011, after 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("reading", sa.Column("statuses", sa.Text()))
    op.create_table(
        "ask",
        sa.Column("key", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("nth", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("endpoint", sa.Text()),
        sa.Column("step", sa.Text()),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text()),
        sa.Column("answer", sa.Text()),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("seconds", sa.REAL()),
        sa.Column("at", sa.REAL()),
        sa.Column("tokens_in", sa.Integer()),
        sa.Column("tokens_out", sa.Integer()),
        sa.Column("notes", sa.Text()),
        sa.Column("failures", sa.Text()),
        sa.CheckConstraint("outcome IN ('completed', 'discarded')", name=op.f("ck_ask_outcome")),
        sa.CheckConstraint("outcome IS NOT 'completed' OR answer IS NOT NULL", name=op.f("ck_ask_answer")),
        sa.CheckConstraint(
            "length(hash) = 16 AND nth >= 0 AND number >= 1 AND attempts >= 0", name=op.f("ck_ask_count")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_ask_job_id")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_ask")),
        sa.UniqueConstraint("job_id", "item_id", "hash", "nth", name=op.f("uq_ask_job_id_item_id_hash_nth")),
        sqlite_strict=True,
    )
    op.create_index("ix_ask_failed", "ask", ["job_id"], sqlite_where=sa.text("failures IS NOT NULL"))
    op.create_table(
        "ask_total",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("asks", sa.Integer(), nullable=False),
        sa.Column("discarded", sa.Integer(), nullable=False),
        sa.Column("retried", sa.Integer(), nullable=False),
        sa.Column("tokens_in", sa.Integer()),
        sa.Column("tokens_out", sa.Integer()),
        sa.Column("seconds", sa.REAL(), nullable=False),
        sa.CheckConstraint("asks >= 0 AND discarded >= 0 AND retried >= 0", name=op.f("ck_ask_total_count")),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_ask_total_run_id")),
        sa.PrimaryKeyConstraint("run_id", "endpoint", "step", name=op.f("pk_ask_total")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "charge",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("day", sa.REAL(), nullable=False),
        sa.Column("at", sa.REAL(), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("tokens_in", sa.Integer(), nullable=False),
        sa.Column("tokens_out", sa.Integer(), nullable=False),
        sa.Column("dollars", sa.REAL(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_charge")),
        sa.UniqueConstraint("run_id", "endpoint", "day", name=op.f("uq_charge_run_id_endpoint_day")),
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_charge_at"), "charge", ["at"])
