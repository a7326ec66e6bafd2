"""Members that share a request, and the batch size that was found best.

Revision: 0004, after 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("member", sa.Column("same_as", sa.Integer(), nullable=True))
    op.rename_table("tuning", "tuning_before")
    op.create_table(
        "tuning",
        sa.Column("shape", sa.Text(), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=True),
        sa.Column("at", sa.REAL(), nullable=False),
        sa.Column("batch_size", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("shape", name=op.f("pk_tuning")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.execute("INSERT INTO tuning (shape, concurrency, at) SELECT shape, concurrency, at FROM tuning_before")
    op.drop_table("tuning_before")
