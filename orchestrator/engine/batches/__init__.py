"""Batches of the HTTP server: files come in, are validated and queued as runs, and become output files at the end.

A file is a row over a content (`store/blobs.py`), which is named by its hash and may be shared. A content gets its
name, and loses it, within a write transaction, so nothing is removed that a row names: `store/files.py` removes
what no file, part of an upload or unfinished batch refers to. What is written and not kept has a temporary name.

A batch is a row over a run (`store/batches.py`). Its status is never stored before it has ended: `status_of`
(`domain/batch.py`) tells it from the row and from the run that has the batch's id as its key, because another run
may take the first one's place and inherits the key. `end_of` decides how it ends. The daemon's duties
(`app/batch_duties.py`) look at unfinished batches: `engine/batches/validation.py` has a file checked and submits
the run; `engine/batches/ending.py` cancels the runs of batches that are cancelled or late, and writes both files
page by page from the ledger. The run and its key, or both files and the end, are one transaction each, and every
step finds what an interrupted one has left: a validated batch whose run is there already begins with that run, and
files are written again until the end is recorded.
"""
