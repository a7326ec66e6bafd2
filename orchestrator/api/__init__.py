"""The Python API: run jobs from scripts, notebooks and other programs, and read their results.

Ctrl-C, a cancellation and the end of the `with` block all become requests to one `Call` (`api/calls.py`), and
`engine/run/stoppable.py` answers them as it answers the command's signals: the first drains, the second cuts short.
The caller waits until the work has ended, and only then raises `KeyboardInterrupt` or the cancellation; a
`PauseUnconfirmed` is raised instead of either. Messages are written for the command; `in_python`
(`domain/command_line.py`) words them for a program.

The settings file that a program names goes with every process that its runs start (`Settings.options`), and job
files that name an endpoint read it (`choose_file`). `AsyncApp.stream` listens to `ItemsSettled`, whose keys it
reads from the ledger; one bit for each row keeps it from yielding one twice.

A `Result` (`api/result.py`) holds numbers and no rows. It reads them from the ledger's file
(`store/settled_rows.py`) whenever they are asked for, without an event loop. Several threads of one process may
therefore have a ledger open: `held_open` (`store/ledger_file.py`) keeps one descriptor of each file, because
closing any descriptor of it would release SQLite's locks.
"""
