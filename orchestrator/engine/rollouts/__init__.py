"""Rollouts: the user's functions, each of which makes requests for one item; and the queues of these requests.

    function asks -> known to the ledger (`AskMaker`): the recorded answer, at once
                  -> otherwise `AskQueue` -> `fan_out` -> `Commits` -> ledger -> `Pending` -> the function goes on
    function ends -> `Commits` -> ledger: the item is settled

`Rollouts` leases items, runs the function for each, and has one queue of asks for each route. An `AskQueue` is a
`WorkQueue`, and an `OpenAsk` an item, so whatever asks an endpoint knows no rollouts. Asks of all routes and outcomes
of items are committed by one writer, in one transaction. What is limited is requests in flight: functions are opened
while a queue has fewer asks ready than its endpoints want, up to eight for each request that may be in flight. A
route's endpoints are paused at once if nothing more will be asked of them (`stuck`), otherwise if nothing has been
for longer than waking them takes. The next ask wakes them again.

`replay.py` runs functions with the ledger alone, for `plan`; `blocking.py` names one that holds the event loop;
`functions.py` leaves one behind that cannot be cancelled; `where.py` finds the line of the user's code that failed;
`conversation.py` keeps a chat and calls tools.
"""
