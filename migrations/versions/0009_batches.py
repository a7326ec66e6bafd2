"""Files, uploads and batches of the HTTP server; what servers answered to refused requests; more in each reading.

Running totals begin at zero.

Revision: 0009, after 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempt", sa.Column("body", sa.Text()))
    op.add_column("reading", sa.Column("latency_counts", sa.Text()))
    op.add_column("reading", sa.Column("commits", sa.Integer()))
    op.add_column("reading", sa.Column("commit_seconds", sa.REAL()))
    op.add_column("reading", sa.Column("lost", sa.Text()))
    op.create_table(
        "running_total",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("value", sa.REAL(), nullable=False),
        sa.PrimaryKeyConstraint("name", "label", name=op.f("pk_running_total")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "file",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("created_at", sa.REAL(), nullable=False),
        sa.Column("expires_at", sa.REAL()),
        sa.CheckConstraint("bytes >= 0", name=op.f("ck_file_bytes")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_file")),
        sa.UniqueConstraint("id", name=op.f("uq_file_id")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_file_sha256"), "file", ["sha256"])
    op.create_index("ix_file_expires", "file", ["expires_at"], sqlite_where=sa.text("expires_at IS NOT NULL"))
    op.create_table(
        "upload",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("mime_type", sa.Text(), nullable=False),
        sa.Column("expires_after", sa.REAL()),
        sa.Column("created_at", sa.REAL(), nullable=False),
        sa.Column("expires_at", sa.REAL(), nullable=False),
        sa.Column("file_id", sa.Text()),
        sa.CheckConstraint("state IN ('pending', 'completed', 'cancelled', 'expired')", name=op.f("ck_upload_state")),
        sa.CheckConstraint("(state = 'completed') = (file_id IS NOT NULL)", name=op.f("ck_upload_file")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_upload")),
        sa.UniqueConstraint("id", name=op.f("uq_upload_id")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index("ix_upload_pending", "upload", ["expires_at"], sqlite_where=sa.text("state = 'pending'"))
    op.create_table(
        "upload_part",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("upload", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.REAL(), nullable=False),
        sa.ForeignKeyConstraint(["upload"], ["upload.number"], name=op.f("fk_upload_part_upload")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upload_part")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_upload_part_upload"), "upload_part", ["upload"])
    op.create_index(op.f("ix_upload_part_sha256"), "upload_part", ["sha256"])
    op.create_table(
        "batch",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("input_file_id", sa.Text(), nullable=False),
        sa.Column("input_sha256", sa.Text()),
        sa.Column("completion_window", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text()),
        sa.Column("output_expires_after", sa.REAL()),
        sa.Column("created_at", sa.REAL(), nullable=False),
        sa.Column("expires_at", sa.REAL(), nullable=False),
        sa.Column("model", sa.Text()),
        sa.Column("run_id", sa.Integer()),
        sa.Column("in_progress_at", sa.REAL()),
        sa.Column("cancelling_at", sa.REAL()),
        sa.Column("finalizing_at", sa.REAL()),
        sa.Column("ended_at", sa.REAL()),
        sa.Column("ended_as", sa.Text()),
        sa.Column("errors", sa.Text()),
        sa.Column("total", sa.Integer()),
        sa.Column("completed", sa.Integer()),
        sa.Column("failed", sa.Integer()),
        sa.Column("usage", sa.Text()),
        sa.Column("output_file_id", sa.Text()),
        sa.Column("error_file_id", sa.Text()),
        sa.CheckConstraint(
            "ended_as IN ('completed', 'failed', 'expired', 'cancelled')", name=op.f("ck_batch_ended_as")
        ),
        sa.CheckConstraint("(ended_at IS NOT NULL) = (ended_as IS NOT NULL)", name=op.f("ck_batch_ended")),
        sa.CheckConstraint("(run_id IS NOT NULL) = (in_progress_at IS NOT NULL)", name=op.f("ck_batch_run")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_batch")),
        sa.UniqueConstraint("id", name=op.f("uq_batch_id")),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index(op.f("ix_batch_created_at"), "batch", ["created_at"])
    op.create_index(op.f("ix_batch_run_id"), "batch", ["run_id"])
    op.create_index("ix_batch_unfinished", "batch", ["number"], sqlite_where=sa.text("ended_at IS NULL"))
