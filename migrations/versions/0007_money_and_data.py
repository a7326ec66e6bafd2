"""Who keeps an endpoint awake by hand, and until when; what there is to note of an answer.

Revision: 0007, after 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("hold", sa.Column("kept_by", sa.Text()))
    op.add_column("hold", sa.Column("expires_at", sa.REAL()))
    op.add_column("result", sa.Column("notes", sa.Text()))
    op.create_index("ix_result_noted", "result", ["item_key"], sqlite_where=sa.text("notes IS NOT NULL"))
