"""What commands overwrite: never the files that a job reads or needs, and files of another origin only when told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.commands import rows

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Workplace
    from tests.servers import InferenceServer

COMMANDS = ["plan", "run", "submit", "doctor"]


def refuses(workplace: Workplace, command: str, job: Path, *words: str) -> None:
    ended = workplace.run(command, *(["--quiet"] if command == "run" else []), job)
    said = ended.out if command == "doctor" else ended.line
    assert ended.code == (1 if command == "doctor" else 2), said
    for word in words:
        assert word in said


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_lets_a_job_overwrite_its_input(workplace: Workplace, server: InferenceServer, command: str) -> None:
    workplace.write_rows(rows(range(3)))
    before = workplace.rows.read_bytes()
    job = workplace.job(source="JsonlSource('*.jsonl')", sink="JsonlSink('~/out.jsonl', overwrite=True)")
    refuses(workplace, command, job, "out.jsonl, which the source", "choose another path")
    assert workplace.rows.read_bytes() == before
    assert not workplace.output.exists()
    assert server.stats().requests == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_lets_a_job_replace_a_file_of_another_origin(
    workplace: Workplace, server: InferenceServer, command: str
) -> None:
    workplace.write_rows(rows(range(3)))
    workplace.output.write_text("somebody's")
    refuses(workplace, command, workplace.job(), "out.jsonl is a file that no delivery of job 'talk' has written")
    assert workplace.output.read_text() == "somebody's"
    assert server.stats().requests == 0


def test_overwrite_replaces_the_file_and_is_stored_with_the_run(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(3)))
    job = workplace.job()
    workplace.output.write_text("somebody's")
    assert workplace.run("plan", "--overwrite", job).code == 0
    assert workplace.run("submit", "--overwrite", job).code == 0
    assert workplace.output.read_text() == "somebody's"
    assert workplace.run("run", "--quiet", "--overwrite", job).code == 0
    assert len(workplace.outputs()) == 3
    assert workplace.run("run", "--quiet", job).code == 0


def test_export_does_not_overwrite_a_file_in_use(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(3)))
    job = workplace.job()
    assert workplace.run("run", "--quiet", job).code == 0
    (workplace.folder / "ledger.jsonl").symlink_to(workplace.ledger)
    (workplace.folder / "job.csv").symlink_to(job)
    (workplace.folder / "other.csv").write_text("somebody's")
    before = {path: path.read_bytes() for path in (workplace.rows, job, workplace.folder / "other.csv")}
    for file, words in {
        "rows.jsonl": "rows.jsonl, which the source",
        "ledger.jsonl": "would overwrite the ledger",
        "job.csv": "would overwrite the job file",
        "hdfs://host/out.jsonl": "hdfs:// is not supported",
    }.items():
        for overwrite in ([], ["--overwrite"]):
            ended = workplace.run("export", "talk", "-o", file, *overwrite)
            assert (ended.code, words in ended.line) == (2, True), ended.err
    assert "--overwrite" in workplace.run("export", "talk", "-o", "other.csv").line
    assert {path: path.read_bytes() for path in before} == before
    assert workplace.run("runs").code == 0
    assert workplace.run("export", "talk", "-o", "other.csv", "--overwrite").code == 0
    assert workplace.run("export", "talk", "-o", "out.csv").code == 0
    assert workplace.run("run", "--quiet", job).code == 0


@pytest.mark.parametrize(
    ("file", "words"), [("ledger.db", "would overwrite the ledger"), ("s3://b/a.html", "s3:// is not")]
)
def test_a_report_is_not_written_over_the_ledger(workplace: Workplace, file: str, words: str) -> None:
    workplace.write_rows(rows(range(3)))
    assert workplace.run("run", "--quiet", workplace.job()).code == 0
    ended = workplace.run("report", "--html", file)
    assert (ended.code, words in ended.line) == (2, True)
    assert workplace.run("runs").code == 0


def test_if_nothing_is_completed_the_earlier_output_is_kept_and_reported(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(3), text="poison {}"))
    assert "nothing was completed: the output has no rows" in workplace.run("run", workplace.job()).err
    workplace.write_rows(rows(range(3)))
    assert workplace.run("run", "--quiet", workplace.job()).code == 0
    before = workplace.outputs()
    workplace.write_rows(rows(range(3), text="poison {}"))
    ended = workplace.run("run", workplace.job())
    assert ended.code == 3
    assert "nothing was completed: the output of run 2 is kept" in ended.err
    assert workplace.outputs() == before
    assert len(workplace.failures()) == 3
    assert workplace.manifest()["kept_from_run"] == 2


def test_if_fewer_rows_are_completed_the_earlier_output_is_kept_and_reported(workplace: Workplace) -> None:
    workplace.write_rows(rows(range(3)))
    assert workplace.run("run", "--quiet", workplace.job()).code == 0
    best = workplace.output.read_bytes()
    job = workplace.job(request='lambda row: "poison" if row["text"].endswith("1") else "another"')
    ended = workplace.run("run", job)
    assert ended.code == 3
    assert "fewer rows than before: the output of run 1, 3 rows, is kept beside it as out.run-1.jsonl" in ended.err
    assert (workplace.folder / "out.run-1.jsonl").read_bytes() == best
    assert len(workplace.outputs()) == 2


def test_a_changed_output_is_replaced_only_with_the_named_option(workplace: Workplace) -> None:
    workplace.write_rows([*rows(range(2)), {"id": "9", "text": "poison"}])
    job = workplace.job()
    assert workplace.run("run", "--quiet", job).code == 3
    workplace.output.write_text("mended by hand")
    for command in (["run", "--quiet", job], ["retry", "1"], ["export", "1", "-o", "out.jsonl"]):
        ended = workplace.run(*command)
        assert ended.code == 2
        assert "out.jsonl was changed since run 1 of job 'talk' wrote it" in ended.err
        assert "--overwrite" in ended.err
    assert workplace.output.read_text() == "mended by hand"
    assert workplace.run("retry", "1", "--overwrite").code == 3
    assert len(workplace.outputs()) == 2


def test_a_report_replaces_an_earlier_report_but_no_other_file(workplace: Workplace) -> None:
    workplace.make_ledger()
    rows = workplace.folder / "mine.jsonl"
    rows.write_text('{"id": 1}\n')
    ended = workplace.run("report", "--html", "mine.jsonl")
    assert (ended.code, "already exists and is not a report" in ended.line) == (2, True)
    assert rows.read_text() == '{"id": 1}\n'
    assert [workplace.run("report", "--html", "night.html").code for _ in range(2)] == [0, 0]
