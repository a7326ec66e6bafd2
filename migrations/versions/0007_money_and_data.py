"""Who keeps an endpoint awake by hand, and until when.

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
