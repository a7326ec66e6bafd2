"""Queueing and repeating jobs from a script: a daemon executes what it can make again, and the rest is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.api.scripts import ran
from tests.commands import rows, until

if TYPE_CHECKING:
    from tests.commands import Workplace
    from tests.servers import InferenceServer

ITEMS = 3
_SUBMIT = """
from orchestrator.errors import UsageError
{code}
with connect() as app:
    try:
        found = app.submit(job_of(sink=None, {settings}))
        say(found.run.id, found.new, found.served)
        assert repr(found.run) == '<Run 1 of talk: ingesting, 0 items: 0 completed, 0 discarded>', found.run
    except UsageError as error:
        say(error)
"""


def submit(workplace: Workplace, settings: str = "", code: str = "") -> str:
    workplace.write_rows(rows(range(ITEMS)))
    ended = ran(workplace, _SUBMIT.format(settings=settings, code=code))
    assert ended.err == ""
    return ended.out


def served(workplace: Workplace) -> list[str]:
    """Let a daemon execute the queued run; return its outputs as the script reads them."""
    with workplace.start("serve"):
        until(lambda: workplace.query("SELECT 1 FROM run WHERE state IN ('finished', 'failed')"))
    reading = "with connect() as app:\n    for row in app.result('talk'): say(row['output'])"
    return ran(workplace, reading).out.splitlines()


def test_a_daemon_executes_a_job_that_only_a_script_has_declared(workplace: Workplace) -> None:
    assert submit(workplace) == "1 True False\n"
    assert len(served(workplace)) == ITEMS


def test_a_daemon_finds_the_functions_of_a_job_in_the_module_that_the_script_imports(workplace: Workplace) -> None:
    (workplace.folder / "parsers.py").write_text("def shout(answer):\n    return answer['said'].upper()\n")
    assert submit(workplace, "parse=parsers.shout", "import parsers") == "1 True False\n"
    assert served(workplace) == ["0 FO TXET", "1 FO TXET", "2 FO TXET"]


def test_a_job_whose_function_only_the_script_has_is_refused_with_the_way_out(workplace: Workplace) -> None:
    said = submit(workplace, "parse=lambda answer: answer")
    remedy = "declare it in a job file or in a module of its own"
    assert said == f"parse (function) is a function, so other processes cannot use it: {remedy}\n"


def test_discarded_items_are_asked_again_for_a_job_of_the_script_and_for_a_run_of_the_ledger(
    workplace: Workplace, server: InferenceServer
) -> None:
    workplace.write_rows([*rows(range(ITEMS)), {"id": "bad", "text": "poison"}])
    ended = ran(
        workplace,
        """
job = job_of(sink=None)
say(len(run(job, retry=True).discarded), len(run(job).discarded), len(run(job, retry=True).discarded))
with connect() as app:
    say(len(app.retry("talk").discarded), app.stop("talk").id)
""",
    )
    assert (ended.out, ended.err) == ("1 1 1\n1 1\n", "")
    assert server.quiet().by_input["poison"] == 3


def test_a_run_of_another_folder_is_not_repeated_by_changing_the_folder_of_the_program(workplace: Workplace) -> None:
    workplace.write_rows([{"id": "bad", "text": "poison"}])
    ended = ran(
        workplace,
        """
import os
from orchestrator.errors import UsageError
run(job_of(sink=None))
os.mkdir("other"); os.chdir("other")
with connect() as app:
    try: app.retry("talk")
    except UsageError as error: say(error)
say(os.path.basename(os.getcwd()))
""",
    )
    assert ended.out == (f"the paths of run 1 of talk count from {workplace.folder}: os.chdir there first\nother\n")
