"""The daemon: queued runs, schedules, and the child processes that execute runs.

Stacking: when everything is settled, a run keeps its endpoint awake as long as a queued run for it is on its way.
It asks the ledger (`Queue.coming`), so this works between daemons and with `run`; the next run enters the same
awake window. The run delivers meanwhile; a delivery by itself keeps nothing awake.

A run has begun once its own process holds it; before that, the daemon that claimed it does. A run that has not
begun blocks others for at most ten seconds, so a job file that hangs (for at most a minute,
`engine/daemon/loading.py`) delays no other run; if another run overtook it, it waits for that one (`GaveWay`). A
claim ends with its run's place in the queue: no process starts a run that was cancelled or replaced. A problem with
one child affects only its run, with the reason in `why`.

A notification is a debt too: `run.notification` records that a run's end is to be reported before it begins
(`engine/run/notifier.py`), and hooks are called once the endpoints are paused. If a killed process did not notify,
or its job file does not load, a process of its own (`orchestrator notify`) does so, under the same id; the daemon,
`sweep` and `run` start it (`engine/daemon/owed_notifications.py`).

A schedule is a row. `next_slot` moves by compare-and-set in the transaction that submits the run and writes the
slot's row, so each slot has exactly one decision whatever processes, crashes and clocks do.
"""
