"""The worker: a child process that serves one model over a Unix socket. The only place where torch is imported.

Everything else that the worker serves is a `Model` (`worker/model.py`: `prepare` one by one, `collate` and `call` a
batch) under `BatchedModel`, which divide inputs in the cheapest way (a call costs as much as a number of padded tokens)
and halve what fails: pipelines, embeddings, and our own models for the tasks that transformers 5 dropped. One
thread calls the model; another prepares the next request (only one) and encodes the previous answers, for which
`worker/stages.py` separates a pipeline's stages. `worker/budget.py` finds the width of a call
(`batch_size="auto"`), and `worker/remembered.py` keeps it in the user's cache, by model and device, because it
belongs to the machine and not to a ledger. Every second a worker writes its status to a file beside its log, which
`status` reads in another process. An item with a seed is a batch of one. A user's pipeline is a module that
`imports` names: the parent finds and hashes it, and only the worker runs it.
"""
