"""Every command that a message suggests exists, accepts its arguments, and works when pasted."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer

import orchestrator
from orchestrator.cli.app import app
from orchestrator.domain.command_line import in_python, typed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.commands import Ended, Workplace

ROOT = Path(orchestrator.__file__).parent
GIVEN = "\0"  # the placeholder for values in a message
COMMAND = re.compile(r"(?:^|(?<=[`: ]))orchestrator ((?!is |cannot )[a-z][a-z-]*[^`;,]*)")


def messages(tree: ast.AST) -> Iterator[tuple[str, list[ast.expr]]]:
    """Yield every text outside docstrings, with `GIVEN` for each inserted value, and what the values are."""
    bodies = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, bodies) and node.body and isinstance(node.body[0], ast.Expr):
            skipped.add(id(node.body[0].value))
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in ast.walk(node) if part is not node and isinstance(part, ast.Constant)}
            parts = [part.value if isinstance(part, ast.Constant) else GIVEN for part in node.values]
            given = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
            yield "".join(map(str, parts)), given
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.value, []


def quoted_commands() -> Iterator[tuple[str, str, list[ast.expr]]]:
    """Yield file, command and inserted values of all commands in messages."""
    for path in sorted(ROOT.rglob("*.py")):
        for text, given in messages(ast.parse(path.read_text())):
            for found in COMMAND.finditer(text):
                before = text[: found.start(1)].count(GIVEN)
                inside = found[1].count(GIVEN)
                yield str(path.relative_to(ROOT)), found[1], given[before : before + inside]


def typed_commands() -> Iterator[tuple[str, list[str]]]:
    """Yield file and words of all commands that `typed` writes."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "typed":
                words = [str(word.value) if isinstance(word, ast.Constant) else "7" for word in node.args]
                options = [part for option in node.keywords for part in (f"--{option.arg}", "7")]
                yield str(path.relative_to(ROOT)), words + options


def check_that_it_parses(words: list[str]) -> None:
    """Raise an error if the command line would be refused. Executes nothing."""
    command: Any = typer.main.get_command(app)  # raised by typer's copy of click
    context = command.make_context("orchestrator", words)
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
        command = context.command


def test_commands_in_messages_repeat_the_global_options_that_were_typed(workplace: Workplace, tmp_path: Path) -> None:
    workplace.write_rows([{"id": "bad", "text": "poison"}])
    config = tmp_path / "my settings.toml"
    config.touch()
    ledger, job = str(workplace.ledger), workplace.job()
    ended = workplace.run("--db", ledger, "--config", config, "run", job, db=False)
    remedy = f"orchestrator --db {ledger} --config '{config}' retry 1"
    assert ended.err.splitlines()[-1] == f"ask the discarded ones again: {remedy}"
    check_that_it_parses(shlex.split(remedy)[1:])
    assert workplace.run("run", job).err.splitlines()[-1] == "ask the discarded ones again: orchestrator retry 1"


def test_commands_on_standard_output_repeat_the_global_options_and_data_stays_as_it_is(workplace: Workplace) -> None:
    workplace.write_rows([{"id": "next: orchestrator run", "text": "poison"}])
    ours = f"orchestrator --db {workplace.ledger}"
    workplace.run("run", workplace.job())
    workplace.run("submit", workplace.job())
    assert f"next: {ours} item 1 " in workplace.run("--db", workplace.ledger, "report", db=False).out
    assert f"-> start `{ours} serve`" in workplace.run("--db", workplace.ledger, "doctor", db=False).out
    assert f"`{ours} go 2`" in workplace.run("--db", workplace.ledger, "hold", "2", db=False).out
    assert "next: orchestrator run\t" in workplace.run("--db", workplace.ledger, "items", "1", db=False).out


@pytest.mark.untraced
def test_every_command_in_a_message_can_be_typed() -> None:
    commands = [(file, shlex.split(text.split("\n")[0].replace(GIVEN, "7"))) for file, text, _ in quoted_commands()]
    commands += typed_commands()
    assert len(commands) > 40
    wrong = []
    for file, words in commands:
        try:
            check_that_it_parses(words)
        except Exception as error:  # noqa: BLE001 - of that copy of click
            if type(error).__name__ != "Exit":  # --help ends with this
                wrong.append((file, words, error))
    assert wrong == []


def test_only_run_numbers_are_put_into_a_command_without_quoting() -> None:
    unquoted = [
        (file, text, ast.unparse(one))
        for file, text, given in quoted_commands()
        for one in given
        if not re.search(r"(\.|\b)(id|run_id|number)$", ast.unparse(one))
    ]
    assert unquoted == []


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("retry", 7), "orchestrator retry 7"),
        (("item", 7, "it's"), """orchestrator item 7 'it'"'"'s'"""),
        (("item", 7, "-5"), "orchestrator item 7 -- -5"),
        (("run", "/a b/job.py"), "orchestrator run '/a b/job.py'"),
    ],
)
def test_arguments_in_suggested_commands_are_quoted(words: tuple[object, ...], line: str) -> None:
    assert typed(*words) == line


def test_options_come_before_arguments_that_could_be_taken_for_options() -> None:
    assert typed("item", 7, "-5", payload="a b") == "orchestrator item 7 --payload 'a b' -- -5"


def pasted(workplace: Workplace, said: str) -> list[Ended]:
    """Run the commands in a text exactly as written, and return their results."""
    lines = re.findall(r"orchestrator ([a-z-]+ [^`\n]+)", said)
    assert lines
    return [workplace.run(*shlex.split(line)) for line in lines]


def test_the_command_in_the_report_shows_the_failed_item(workplace: Workplace) -> None:
    for run, name in (("1", "it's $HOME"), ("2", "-5")):
        workplace.write_rows([{"id": name, "text": "poison"}])
        assert workplace.run("run", workplace.job()).code == 3
        (ended,) = pasted(workplace, workplace.run("report", run).out.rpartition("next: ")[2])
        assert ended.code == 0, ended.err
        assert name in ended.out


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:9/some%20path?x=1&y=2", "cannot connect to 127.0.0.1:9 (Connection refused)"),
        ("http://no-such-host.invalid/", "cannot connect to no-such-host.invalid:80 (the name does not resolve"),
    ],
)
def test_doctor_explains_an_unreachable_server_and_suggests_a_command_that_says_more(
    workplace: Workplace, url: str, why: str
) -> None:
    ended = workplace.run("doctor", workplace.job(endpoint=f"HttpEndpoint({url!r})"))
    assert ended.code == 1
    assert why in ended.out
    (checked,) = pasted(workplace, ended.out)
    assert (checked.code, checked.err) == (1, "")
    assert re.search(r"(TLS|DNS) +failed .*(Connection refused|does not resolve)", checked.out)


def test_an_unreachable_server_is_reported_while_a_run_waits_and_at_its_end(
    workplace: Workplace,
) -> None:
    workplace.write_rows([{"id": "1", "text": "a"}])
    waits = workplace.job(endpoint="HttpEndpoint('http://no-such-host.invalid/')")
    with workplace.start("run", waits) as running:
        running.says("waking: 0/1 · cannot connect to no-such-host.invalid:80 (the name does not resolve")
    ended = workplace.run("run", workplace.job(endpoint="HttpEndpoint('http://127.0.0.1:9/', startup_timeout=0.5)"))
    assert ended.code == 4
    assert "was not awake within 0.5 s: cannot connect to 127.0.0.1:9 (Connection refused)" in ended.err


def test_any_url_can_be_checked(workplace: Workplace) -> None:
    ended = workplace.run("endpoints", "check", workplace.url, "--json")
    assert (ended.code, ended.json["ok"]) == (0, True)
    assert [step["name"] for step in ended.json["steps"]][:3] == ["DNS", "TLS", "token"]
    for url in ("ftp://h/", "http://", "http://user:secret@h/"):
        refused = workplace.run("endpoints", "check", url)
        assert (refused.code, "secret" in refused.line) == (2, False)


ONLY_OF_COMMANDS = ("cli/", "app/doctor/", "job_file.py", "worker/", "domain/command_line.py")


def test_no_message_of_a_run_speaks_of_the_command_to_a_program() -> None:
    foreign = re.compile(r"same command|--(db|overwrite|reuse|after|config)\b|` in the job file")
    for path in sorted(ROOT.rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if not name.startswith(ONLY_OF_COMMANDS):
            for text, _ in messages(ast.parse(path.read_text())):
                assert len(text.split()) < 2 or not foreign.search(in_python(text)), (name, text)
