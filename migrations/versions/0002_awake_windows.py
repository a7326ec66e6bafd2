"""Awake windows: which endpoints were resumed, who uses them, what is owed, what it cost.

Revision: 0002, after 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "awake_window",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("pause_with", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("owed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("to_zero", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("price_per_hour", sa.REAL(), nullable=True),
        sa.Column("opened_at", sa.REAL(), nullable=False),
        sa.Column("resumed_at", sa.REAL(), nullable=True),
        sa.Column("asked_at", sa.REAL(), nullable=True),
        sa.Column("closed_at", sa.REAL(), nullable=True),
        sa.Column("closed_by", sa.Text(), nullable=True),
        sa.Column("looked_at", sa.REAL(), server_default=sa.text("0"), nullable=False),
        sa.Column("seen", sa.Text(), nullable=True),
        sa.Column("said", sa.Text(), nullable=True),
        sa.CheckConstraint("(state = 'closed') = (closed_at IS NOT NULL)", name=op.f("ck_awake_window_closed")),
        sa.CheckConstraint("owed IN (0, 1) AND to_zero IN (0, 1)", name=op.f("ck_awake_window_flags")),
        sa.CheckConstraint("state IN ('open', 'closing', 'closed')", name=op.f("ck_awake_window_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_awake_window")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index(
        "ux_awake_window_endpoint",
        "awake_window",
        ["endpoint"],
        unique=True,
        sqlite_where=sa.text("state <> 'closed'"),
    )
    op.create_index(op.f("ix_awake_window_opened_at"), "awake_window", ["opened_at"], unique=False)
    op.create_table(
        "hold",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("window_id", sa.Integer(), nullable=False),
        sa.Column("process_id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=True),
        sa.Column("job", sa.Text(), nullable=True),
        sa.Column("since", sa.REAL(), nullable=False),
        sa.Column("until", sa.REAL(), nullable=True),
        sa.Column("cold_start", sa.REAL(), server_default=sa.text("0"), nullable=False),
        sa.Column("work", sa.REAL(), server_default=sa.text("0"), nullable=False),
        sa.Column("idle", sa.REAL(), server_default=sa.text("0"), nullable=False),
        sa.Column("pausing", sa.REAL(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(["process_id"], ["process.id"], name=op.f("fk_hold_process_id")),
        sa.ForeignKeyConstraint(["window_id"], ["awake_window.id"], name=op.f("fk_hold_window_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hold")),
        sqlite_strict=True,
    )
    op.create_index("ix_hold_holding", "hold", ["process_id"], unique=False, sqlite_where=sa.text("until IS NULL"))
    op.create_index("ix_hold_window", "hold", ["window_id"], unique=False)
