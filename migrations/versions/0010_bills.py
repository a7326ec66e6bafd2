"""What the provider bills for an awake window; what lets a run take over the chunks of the one before.

Revision: 0010, after 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("awake_window", sa.Column("billed_seconds", sa.REAL()))
    op.add_column("awake_window", sa.Column("billed_dollars", sa.REAL()))
    op.add_column("run", sa.Column("made_as", sa.Text()))
    op.add_column("chunk", sa.Column("texts", sa.LargeBinary()))
