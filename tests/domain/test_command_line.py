"""Messages for Python: calls and arguments take the place of commands and options."""

from __future__ import annotations

import pytest

from orchestrator.domain.command_line import in_python


@pytest.mark.parametrize(
    ("command", "python"),
    [
        ("stopped; run the same command again to continue", "stopped; make the same call again to continue"),
        ("replace it with `--overwrite` or `overwrite=True` in the sink", "replace it with `overwrite=True`"),
        ("answered by job old: `--reuse old`", "answered by job old: `reuse=['old']`"),
        ("`--reuse old --overwrite` keeps its answers", "`reuse=['old'], overwrite=True` keeps its answers"),
        ("--reuse old: job 'old' has no answers", "reuse=['old']: job 'old' has no answers"),
        ("or name another ledger with --db", "or name another ledger with `ledger=`"),
        ("correct `id` in the job file", "correct `id` of the job"),
        ("then run `orchestrator sweep`", "then run `app.sweep()`"),
        ("see `orchestrator status 7`", "see `app.status(7)`"),
        ("see `orchestrator retry talk`", "see `app.retry('talk')`"),
        ("see `orchestrator doctor`", "see `orchestrator --db 'my ledger' doctor`"),
        ("nothing of the command", "nothing of the command"),
    ],
)
def test_a_message_is_worded_for_python(command: str, python: str) -> None:
    assert in_python(command, ["--db", "my ledger"]) == python
