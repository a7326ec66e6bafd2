"""Layer 4: the use cases. Knows domain, ports, job and store; no HTTP, no SQL, and endpoints only through their port.

From run to settle, who calls whom:

    run/run_job         takes the run in the ledger (prepare, ingest, reuse), then works it off, then delivers
    run/execution       works it off in shifts: of each endpoint, one session; of an endpoint with members, one for each
    awake/awake         lends an endpoint: enters its awake window, wakes it, and pauses it however the block ends
    run/session         asks one endpoint until the work queue has nothing for it; connects again if it is lost
    asking/fanout       sends many requests at once (concurrency) as long as the endpoint may be asked (throttle)
    asking/attempts     one request: asked, halved if it is refused as a whole, each item judged by `domain/verdict.py`
    asking/breaker      holds failures in a row back until it is known whether the endpoint is to blame
    asking/work_queue   leases items from the ledger, hands them out, and commits what became of them: settled
    run/deliver         writes the output, in input order; run/notifier then tells whoever wants to know

`stop.Stop` goes down all of these as an argument, and events go out of them (`events.Events`). `daemon/` has queued
runs executed by child processes, each of which calls `run_job`. Imports go down: daemon, run, then asking and awake.
"""
