"""The first ledger: processes, jobs, runs, items and how they were settled.

Revision: 0001, after None
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("parse", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
        sa.UniqueConstraint("name", name=op.f("uq_job_name")),
        sqlite_strict=True,
    )
    op.create_table(
        "process",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("pid_started", sa.REAL(), nullable=False),
        sa.Column("started_at", sa.REAL(), nullable=False),
        sa.Column("lease_until", sa.REAL(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.CheckConstraint("state IN ('live', 'ended', 'dead')", name=op.f("ck_process_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_process")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index(
        op.f("ix_process_lease_until"), "process", ["lease_until"], unique=False, sqlite_where=sa.text("state = 'live'")
    )
    op.create_table(
        "item",
        sa.Column("key", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=True),
        sa.Column("forgiven", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_item_job_id")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_item")),
        sa.UniqueConstraint("job_id", "item_id", "hash", name=op.f("uq_item_job_id_item_id_hash")),
        sqlite_strict=True,
    )
    op.create_table(
        "run",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("input_sha256", sa.Text(), nullable=True),
        sa.Column("total", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("plan", sa.Text(), nullable=True),
        sa.Column("holder", sa.Integer(), nullable=True),
        sa.Column("rate", sa.REAL(), nullable=True),
        sa.Column("created_at", sa.REAL(), nullable=False),
        sa.Column("started_at", sa.REAL(), nullable=True),
        sa.Column("finished_at", sa.REAL(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(state IN ('finished', 'cancelled', 'superseded')) = (finished_at IS NOT NULL)",
            name=op.f("ck_run_finished"),
        ),
        sa.CheckConstraint(
            "state IN ('ingesting', 'open', 'finished', 'failed', 'stopped', 'cancelled', 'superseded')",
            name=op.f("ck_run_state"),
        ),
        sa.ForeignKeyConstraint(["holder"], ["process.id"], name=op.f("fk_run_holder")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_run_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_run_holder"), "run", ["holder"], unique=False, sqlite_where=sa.text("holder IS NOT NULL"))
    op.create_index(op.f("ix_run_job_id_id"), "run", ["job_id", "id"], unique=False)
    op.create_table(
        "attempt",
        sa.Column("item_key", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("seconds", sa.REAL(), nullable=False),
        sa.Column("at", sa.REAL(), nullable=False),
        sa.Column("available_at", sa.REAL(), nullable=True),
        sa.CheckConstraint("(outcome = 'retry_later') = (available_at IS NOT NULL)", name=op.f("ck_attempt_later")),
        sa.CheckConstraint("outcome IN ('retry_later', 'discarded')", name=op.f("ck_attempt_outcome")),
        sa.ForeignKeyConstraint(["item_key"], ["item.key"], name=op.f("fk_attempt_item_key")),
        sa.PrimaryKeyConstraint("item_key", "number", name=op.f("pk_attempt")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "chunk",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("lo", sa.Integer(), nullable=False),
        sa.Column("hi", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("holder", sa.Integer(), nullable=True),
        sa.Column("token", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("strikes", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("completed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("discarded", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("(state = 'leased') = (holder IS NOT NULL)", name=op.f("ck_chunk_holder")),
        sa.CheckConstraint("state <> 'done' OR completed + discarded = hi - lo", name=op.f("ck_chunk_done")),
        sa.CheckConstraint("state IN ('available', 'leased', 'done')", name=op.f("ck_chunk_state")),
        sa.CheckConstraint(
            "lo < hi AND completed >= 0 AND discarded >= 0 AND completed + discarded <= hi - lo",
            name=op.f("ck_chunk_count"),
        ),
        sa.ForeignKeyConstraint(["holder"], ["process.id"], name=op.f("fk_chunk_holder")),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_chunk_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chunk")),
        sa.UniqueConstraint("run_id", "lo", name=op.f("uq_chunk_run_id_lo")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index(
        "ix_chunk_available", "chunk", ["run_id", "id"], unique=False, sqlite_where=sa.text("state = 'available'")
    )
    op.create_index("ix_chunk_leased", "chunk", ["holder"], unique=False, sqlite_where=sa.text("state = 'leased'"))
    op.create_table(
        "member",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("item_key", sa.Integer(), nullable=False),
        sa.Column("kept", sa.Text(), nullable=True),
        sa.CheckConstraint("id >> 32 = run_id", name=op.f("ck_member_position")),
        sa.ForeignKeyConstraint(["item_key"], ["item.key"], name=op.f("fk_member_item_key")),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_member_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_member")),
        sa.UniqueConstraint("item_key", "run_id", name=op.f("uq_member_item_key_run_id")),
        sqlite_strict=True,
    )
    op.create_table(
        "result",
        sa.Column("item_key", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.REAL(), nullable=False),
        sa.Column("finished_at", sa.REAL(), nullable=False),
        sa.Column("output", sa.Text(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.CheckConstraint("(outcome = 'completed') = (output IS NOT NULL)", name=op.f("ck_result_output")),
        sa.CheckConstraint("outcome IN ('completed', 'discarded')", name=op.f("ck_result_outcome")),
        sa.ForeignKeyConstraint(["item_key"], ["item.key"], name=op.f("fk_result_item_key")),
        sa.PrimaryKeyConstraint("item_key", name=op.f("pk_result")),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_result_discarded", "result", ["item_key"], unique=False, sqlite_where=sa.text("outcome = 'discarded'")
    )
