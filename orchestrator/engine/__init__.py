"""The use cases. Knows domain, ports, job and store; no HTTP, no SQL, and endpoints only through their port.

From run to settle, top down:

    run/run_job         takes the run in the ledger (prepare, ingest, reuse), has it executed, then delivers
    run/execution       asks in shifts; `endpoint_uses` has a session for each endpoint, or for each member of one
    awake/awake         opens an endpoint: enters its awake window, wakes it, and pauses it however the block ends
    run/session         asks one endpoint until the work queue has nothing for it; connects again if it is lost
    asking/fanout       sends many requests at once (concurrency) as long as the endpoint may be asked (throttle)
    asking/attempts     makes one request, halves it if it is refused as a whole, judges each item (`domain/verdict.py`)
    asking/breaker      holds back failures in a row until it is known whether the endpoint is at fault
    asking/work_queue   hands out items, which `leased_items` leases from the ledger; `commits` settles their outcomes
    rollouts/rollouts   runs the user's functions in place of the leased items; what they ask waits in an `ask_queue`
    run/deliver         writes the output, in input order; run/notifier then notifies the hooks

`stop.Stop` is passed down through all of these, and events come up (`events.Events`). `daemon/` executes queued runs
in child processes, each of which calls `run_job`. `bench/` loads an endpoint as a session does. Imports go down:
daemon and bench, run, rollouts, then asking and awake.
"""
