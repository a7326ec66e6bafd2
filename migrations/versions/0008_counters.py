"""Counters that agree with the results; names that say what they mean.

Every chunk is counted again, tokens included, because older versions missed some changes. A chunk that was done
although one of its items had no result can be leased again. Tables of awake windows keep their names: a process of an
older version that is running must still be able to pause what it woke.

Revision: 0008, after 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_SETTLED = """
iif(r.outcome = 'discarded',
    NOT EXISTS (SELECT 1 FROM item f WHERE f.key = r.item_key AND f.forgiven > 0 AND f.forgiven >= r.attempts),
    r.item_key IS NOT NULL)
"""
_COUNT = f"""
UPDATE chunk SET
    state = iif(chunk.state = 'done' AND NOT s.whole, 'available', chunk.state), completed = s.completed,
    discarded = iif(chunk.state = 'done' AND s.whole, chunk.hi - chunk.lo, s.settled) - s.completed,
    tokens_in = s.tokens_in, tokens_out = s.tokens_out
FROM (SELECT c.id, sum({_SETTLED}) AS settled, coalesce(sum(r.outcome = 'completed'), 0) AS completed,
             count(r.item_key) = c.hi - c.lo AS whole,
             CAST(sum(1.0 * r.tokens_in) AS INTEGER) AS tokens_in,
             CAST(sum(1.0 * r.tokens_out) AS INTEGER) AS tokens_out
      FROM chunk c CROSS JOIN member m ON m.id >= (c.run_id << 32) | c.lo AND m.id < (c.run_id << 32) | c.hi
      LEFT JOIN result r ON r.item_key = m.item_key GROUP BY c.id) s
WHERE chunk.id = s.id
"""


def upgrade() -> None:
    op.drop_index("ix_chunk_uncounted", "chunk")
    op.execute("ALTER TABLE chunk DROP COLUMN counted")
    op.execute(_COUNT)
    op.create_table(
        "delivered_item",
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_delivered_item_job_id")),
        sa.PrimaryKeyConstraint("job_id", "item_id", "hash", name=op.f("pk_delivered_item")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.execute("INSERT INTO delivered_item SELECT job_id, item_id, hash FROM known")
    op.drop_table("known")
    op.execute("ALTER TABLE run RENAME COLUMN told TO notification")
    op.execute(
        "UPDATE run SET notification = json_set(json_remove(notification, '$.told'), '$.results', "
        "json_extract(notification, '$.told')) WHERE json_type(notification, '$.told') IS NOT NULL"
    )
