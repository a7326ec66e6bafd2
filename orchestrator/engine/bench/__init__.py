"""Load tests: offer an endpoint a load for a while, and measure how it answers.

`orchestrator endpoints bench` (`app/endpoints/bench.py`) finds the endpoint and the requests. `run_load_test`
(`engine/bench/load_test.py`) uses the endpoint as a session of a run does, with a `Tenant` that has no run and a
budget of its own (`Payer`). A `Sender` sends over the data planes and counts in a `LoadTally`; `loops.py` decides
when: `open_loop` on the schedule of `arrivals`, `ClosedLoops` by a number of clients, which a sweep changes
(`next_concurrency`, `knee` in `domain/load.py`). `domain/load_figures.py` makes figures of tallies, also while they
grow. Nothing is written to the ledger but the awake window and, if asked, `tuning`. `PercentileHistogram` counts
durations with a bounded error, in bounded memory.
"""
