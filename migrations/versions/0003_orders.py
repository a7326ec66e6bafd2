"""Orders for live runs, tokens of an answer, and what was found out about endpoints.

Revision: 0003, after 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run", sa.Column("held", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("run", sa.Column("concurrency", sa.Integer(), nullable=True))
    op.add_column("result", sa.Column("tokens_in", sa.Integer(), nullable=True))
    op.add_column("result", sa.Column("tokens_out", sa.Integer(), nullable=True))
    op.create_table(
        "tuning",
        sa.Column("shape", sa.Text(), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("at", sa.REAL(), nullable=False),
        sa.PrimaryKeyConstraint("shape", name=op.f("pk_tuning")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
