"""What the runs of a schedule wait for.

Revision: 0006, after 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("schedule", sa.Column("after", sa.Text(), server_default=sa.text("'[]'"), nullable=False))
