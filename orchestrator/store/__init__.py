"""The ledger, which is the only memory. Only this package speaks SQL.

`Store` has one attribute for each thing that changes state. A method that writes is one short transaction, shielded
from cancellation, and one transition: its `UPDATE` names the state that it leaves, and changes nothing if that is past.

    run       queue.py: queued -> claimed -> requeued or failed    runs.py, taking.py: taken -> open -> ended
    item      snapshots.py: ingested    items.py: leased -> settled, released, expired    forgive.py: available again
    result    items.py, reuse.py: written once    answers.py: parsed again    chunks.py: counted in every run
    ask       asks.py: answered or failed -> asked again
    endpoint  windows.py: entered -> owed -> left -> closed    lasting_holds.py: kept awake without a process
    schedule  schedules.py: each slot fired, skipped or missed    process  runs.py: registered -> left or buried
    batch     batches.py: created -> in progress -> ended    files.py: kept or deleted, with contents in blobs.py
    after     delivered_items.py, notifications.py: delivered, notified    prune.py: deleted

views.py, transcripts.py, finished_runs.py, attempts.py, receipts.py, history.py and health.py only read, and so does
row_classes.py, which compares a source's rows with the items that the ledger has. tables.py has the tables,
settled.py the SQL for "settled". database.py runs transactions on connections.py, and connection.py executes
statements. sqlite.py chooses the library, migrate.py upgrades older ledgers.
"""

from orchestrator.store.seen import Seen
from orchestrator.store.store import Store

__all__ = ["Seen", "Store"]
