"""The queue: runs that are due, what they wait for, schedules and their slots; readings of how a run went.

Revision: 0005, after 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "broken_file",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("at", sa.REAL(), nullable=False),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_broken_file")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "schedule",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("jobfile", sa.Text(), nullable=False),
        sa.Column("about", sa.Text(), nullable=False),
        sa.Column("endpoints", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("deadline", sa.Text(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("tz", sa.Text(), nullable=False),
        sa.Column("overlap", sa.Text(), nullable=False),
        sa.Column("catch_up", sa.Text(), nullable=False),
        sa.Column("catch_up_window", sa.REAL(), nullable=False),
        sa.Column("jitter", sa.REAL(), nullable=False),
        sa.Column("paused", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_slot", sa.REAL(), nullable=True),
        sa.Column("last_slot", sa.REAL(), nullable=True),
        sa.Column("missed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("gone", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("revision", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("catch_up IN ('latest', 'all', 'none')", name=op.f("ck_schedule_catch_up")),
        sa.CheckConstraint(
            "overlap IN ('skip', 'buffer_one', 'allow', 'cancel_other')", name=op.f("ck_schedule_overlap")
        ),
        sa.CheckConstraint("source IN ('file', 'command')", name=op.f("ck_schedule_source")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule")),
        sa.UniqueConstraint("job", name=op.f("uq_schedule_job")),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_schedule_next", "schedule", ["next_slot"], unique=False, sqlite_where=sa.text("paused = 0 AND gone = 0")
    )
    op.create_table(
        "slot",
        sa.Column("schedule_id", sa.Integer(), nullable=False),
        sa.Column("slot", sa.REAL(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=True),
        sa.Column("at", sa.REAL(), nullable=False),
        sa.CheckConstraint("outcome IN ('fired', 'skipped', 'missed')", name=op.f("ck_slot_outcome")),
        sa.ForeignKeyConstraint(["schedule_id"], ["schedule.id"], name=op.f("fk_slot_schedule_id")),
        sa.PrimaryKeyConstraint("schedule_id", "slot", name=op.f("pk_slot")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "reading",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.REAL(), nullable=False),
        sa.Column("process_id", sa.Integer(), nullable=False),
        sa.Column("completed", sa.Integer(), nullable=False),
        sa.Column("discarded", sa.Integer(), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("tokens_in", sa.Integer(), nullable=True),
        sa.Column("tokens_out", sa.Integer(), nullable=True),
        sa.Column("in_flight", sa.Integer(), nullable=False),
        sa.Column("latency", sa.REAL(), nullable=True),
        sa.ForeignKeyConstraint(["process_id"], ["process.id"], name=op.f("fk_reading_process_id")),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_reading_run_id")),
        sa.PrimaryKeyConstraint("run_id", "at", name=op.f("pk_reading")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "uses",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_uses_run_id")),
        sa.PrimaryKeyConstraint("run_id", "endpoint", name=op.f("pk_uses")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_uses_endpoint", "uses", ["endpoint"], unique=False)
    op.create_table(
        "wait",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("for_run", sa.Integer(), nullable=False),
        sa.Column("any_end", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(["for_run"], ["run.id"], name=op.f("fk_wait_for_run")),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_wait_run_id")),
        sa.PrimaryKeyConstraint("run_id", "for_run", name=op.f("pk_wait")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_wait_for_run", "wait", ["for_run"], unique=False)
    op.add_column("process", sa.Column("serves", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("run", sa.Column("due_at", sa.REAL(), nullable=True))
    op.add_column("run", sa.Column("priority", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("run", sa.Column("deadline", sa.REAL(), nullable=True))
    op.add_column("run", sa.Column("key", sa.Text(), nullable=True))
    op.add_column("run", sa.Column("key_hash", sa.Text(), nullable=True))
    op.add_column("run", sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("run", sa.Column("settled_at_claim", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("run", sa.Column("why", sa.Text(), nullable=True))
    op.add_column("run", sa.Column("told", sa.Text(), nullable=True))
    op.add_column("run", sa.Column("left_at", sa.REAL(), nullable=True))
    op.add_column("run", sa.Column("delivered_at", sa.REAL(), nullable=True))
    op.create_index("ix_run_queued", "run", ["due_at"], unique=False, sqlite_where=sa.text("due_at IS NOT NULL"))
    op.create_index("ux_run_key", "run", ["key"], unique=True, sqlite_where=sa.text("key IS NOT NULL"))
    op.create_table(
        "known",
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_known_job_id")),
        sa.PrimaryKeyConstraint("job_id", "item_id", "hash", name=op.f("pk_known")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "upkeep",
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("at", sa.REAL(), nullable=False),
        sa.PrimaryKeyConstraint("what", name=op.f("pk_upkeep")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_run_finished", "run", ["finished_at"], unique=False, sqlite_where=sa.text("finished_at IS NOT NULL")
    )
    op.add_column("chunk", sa.Column("counted", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("chunk", sa.Column("tokens_in", sa.Integer(), nullable=True))
    op.add_column("chunk", sa.Column("tokens_out", sa.Integer(), nullable=True))
    op.create_index(
        "ix_chunk_uncounted",
        "chunk",
        ["run_id", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'done' AND counted = 0"),
    )
