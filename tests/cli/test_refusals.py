"""Invalid input is reported in one line with the remedy and the documented exit code, and as JSON if requested."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.commands import rows

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Ended, Workplace
    from tests.servers import InferenceServer


@dataclass(frozen=True)
class Refusal:
    """A job file that cannot work, or options for a valid one."""

    says: tuple[str, ...]
    code: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    whole_file: str | None = None
    file: str = "job.py"


REFUSALS = {
    "a job file that does not exist": Refusal(("there is no job file", "absent.py"), file="absent.py"),
    "a job file with a syntax error": Refusal(("job.py, line 2", "never closed"), whole_file="x = 1\njob = (\n"),
    "a job file without a job": Refusal(("job.py", "exactly one Job", "defines 0"), whole_file="x = 1\n"),
    "a job file with two jobs": Refusal(("exactly one Job", "defines 2"), {"prelude": "two = None"}),
    "a job file that raises": Refusal(("job.py, line 2: ZeroDivisionError",), whole_file="x = 1\ny = x / 0\n"),
    "a job file that imports what is not there": Refusal(("line 1", "nowhere"), whole_file="import nowhere\n"),
    "a job file that exits": Refusal(("job.py", "exit"), whole_file="import sys\nsys.exit('no')\n"),
    "a name that is none": Refusal(("a job's name",), {"name": "'9 lives'"}),
    "a sink that is none": Refusal(("is not a sink",), {"sink": "'out.jsonl'"}),
    "a template without a name": Refusal(("column name in every pair of braces",), {"request": "'{}'"}),
    "a template with a broken brace": Refusal(("job.py, line ",), {"request": "'{text'"}),
    "a policy that cannot be": Refusal(("policy.concurrency", "not 0"), {"policy": "concurrency=0"}),
    "a policy key that is none": Refusal(("concurency",), {"policy": "concurency=1"}),
    "a URL with a password": Refusal(("must not hold a password",), {"endpoint": "HttpEndpoint('http://u:p@h/')"}),
    "an input that does not exist": Refusal(
        ("absent.jsonl does not exist", "check the path"), {"source": "JsonlSource('absent.jsonl', id='id')"}
    ),
    "an input folder that will hold the output": Refusal(
        ("would overwrite", "out.jsonl, which the source", "choose another path"),
        {"source": "JsonlSource('.', id='id')"},
    ),
    "an input folder without a file of its format": Refusal(
        ("has no file named *.csv", "give a pattern"), {"source": "CsvSource('.', id='id')"}
    ),
    "a column that no row has": Refusal(("'txet'", "id, text", "correct `request`"), {"request": "'{txet}'"}),
    "an id column that no row has": Refusal(
        ("no column 'nr' for the id", "only id, text", "correct `id`"), {"source": "JsonlSource('rows.jsonl', id='nr')"}
    ),
    "a --set without a value": Refusal(("--set 'policy.concurrency'",), options=("--set", "policy.concurrency")),
    "a --set of an unknown key": Refusal(("'speed'", "concurrency, batch_size"), options=("--set", "policy.speed=1")),
    "a --set of an unknown part": Refusal(("'polcy'", "policy"), options=("--set", "polcy.speed=1")),
    "a --set of a wrong type": Refusal(("policy.concurrency", "'many'"), options=("--set", "policy.concurrency=many")),
    "a --set inside a number": Refusal(("nothing to set inside",), options=("--set", "policy.concurrency.x=1")),
    "a token that is not set": Refusal(
        ("set the environment variable TOKEN_OF_NOBODY",),
        {"endpoint": "HttpEndpoint('http://127.0.0.1:9/', token_env='TOKEN_OF_NOBODY')"},
    ),
    "a local model that is not there": Refusal(
        ("absent",), {"endpoint": "LocalEndpoint('./absent', task='fill-mask')"}
    ),
}


def refused(ended: Ended, code: int, *says: str) -> None:
    """Check for one line on stderr, one JSON object on stdout, no traceback, and that exit code."""
    assert all(part in ended.line for part in says), ended.line
    assert ended.code == code
    assert ended.json == {"error": ended.json["error"], "exit_code": code}
    assert ended.json["error"] in ended.line


@pytest.mark.parametrize("case", REFUSALS)
def test_invalid_input_is_reported_in_one_line(workplace: Workplace, server: InferenceServer, case: str) -> None:
    refusal = REFUSALS[case]
    workplace.write_rows(rows(range(3)))
    path = workplace.job(**refusal.code)
    if refusal.whole_file is not None:
        path.write_text(refusal.whole_file)
    if case == "a job file with two jobs":
        path.write_text(path.read_text() + "import dataclasses\nother = dataclasses.replace(job, name='other')\n")
    file = workplace.folder / refusal.file
    refused(workplace.run("run", "--quiet", "--json", *refusal.options, file), 2, *refusal.says)
    assert server.stats().requests == 0
    assert not workplace.output.exists()


def test_duplicate_ids_are_named_with_their_rows(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows([*rows(range(700)), {"id": "i3", "text": "again"}])
    job = workplace.job()
    for command in ("run", "plan"):
        options = ["--quiet"] if command == "run" else []
        refused(workplace.run(command, "--json", *options, job), 2, "'i3'", "rows 4 and 701", "make them unique")
    assert server.stats().requests == 0
    workplace.write_rows(rows(range(700)))
    assert workplace.run("run", "--quiet", job).code == 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("bussy_seconds = 1", ("'bussy_seconds'", "busy_seconds")),
        ("busy_seconds = 'long'", ("busy_seconds", "'long'")),
        ("busy_seconds = 0", ("busy_seconds", "greater than 0")),
        ("busy_seconds =", ("not valid TOML",)),
        ("[budget]\nmax_cost = 1", ("'budget.max_cost'", "max_cost_per_day, max_awake_per_day")),
        ("[budget]\nmax_cost_per_day = -1", ("budget.max_cost_per_day", "greater than or equal to 0")),
        (None, ("cannot be read", "No such file")),
    ],
)
def test_an_invalid_config_file_is_named(workplace: Workplace, content: str | None, says: tuple[str, ...]) -> None:
    workplace.write_rows(rows(range(3)))
    config = workplace.folder / "config.toml"
    if content is not None:
        config.write_text(content)
    job = workplace.job()
    refused(workplace.run("--config", config, "run", "--quiet", "--json", job), 2, str(config), *says)
    ended = workplace.run("runs", "--json", env={"ORCHESTRATOR_CONFIG": str(config)})
    refused(ended, 2, str(config), *says)


@pytest.mark.parametrize("url", ["postgresql://host/db", "sqlite://", "://"])
def test_a_ledger_that_is_not_a_file_is_refused(workplace: Workplace, url: str) -> None:
    refused(workplace.run("--db", url, "runs", "--json", db=False), 2, f"ledger '{url}'", "sqlite:///PATH")


def test_an_unreachable_server_stops_the_run_resumably(workplace: Workplace, server: InferenceServer) -> None:
    workplace.write_rows(rows(range(3)))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        job = workplace.job(endpoint=f"HttpEndpoint({url!r}, model='m', startup_timeout=0.3)")
        refused(
            workplace.run("run", "--quiet", "--json", job), 4, url, "not awake within 0.3 s", "run the same command"
        )
    assert workplace.run("status", "--json").json["state"] == "stopped"
    job = workplace.job(endpoint=f"HttpEndpoint({server.url!r}, model='m')")
    assert workplace.run("run", "--quiet", job).code == 0


def test_a_wrong_token_fails_the_run_after_requests_in_flight_have_ended(
    workplace: Workplace, server: InferenceServer
) -> None:
    workplace.write_rows(rows(range(100)))
    server.behave(token="right", latency=0.05)
    job = workplace.job(endpoint=f"HttpEndpoint({server.url!r}, token_env='TOKEN')", policy="concurrency=4")
    ended = workplace.run("run", "--quiet", "--json", job, env={"TOKEN": "wrong"})
    refused(ended, 1, server.url, "401", "who are you?", "check the token")
    assert "wrong" not in ended.err
    assert server.quiet().requests < 2 * 4  # each refusal but the last of four frees a place
    status = workplace.run("status", "--json").json
    assert (status["state"], status["counts"]["available"], status["counts"]["leased"]) == ("failed", 100, 0)
    assert workplace.run("run", "--quiet", job, env={"TOKEN": "right"}).code == 0
    assert token_is_nowhere(workplace.folder, b"right\0", b'"right"', b"Bearer")


def token_is_nowhere(folder: Path, *forms: bytes) -> bool:
    files = [path for path in folder.iterdir() if path.is_file() and path.suffix != ".py"]
    return not any(form in path.read_bytes() for path in files for form in forms)


@pytest.mark.parametrize("command", ["status", "items", "item", "export", "cancel", "retry"])
def test_a_missing_run_is_reported(workplace: Workplace, command: str) -> None:
    workplace.make_ledger()
    more = {"item": ["i1"], "export": ["-o", "there.jsonl"]}.get(command, [])
    ended = workplace.run(command, "nobody", *more)
    assert ended.code == 2
    assert "no run 'nobody'" in ended.line
    assert str(workplace.ledger) in ended.line


@pytest.mark.parametrize(
    "arguments", [["unheard-of"], ["run"], ["run", "job.py", "--limit", "0"], ["prune", "--older-than", "soon"], []]
)
def test_an_invalid_command_line_exits_with_2(workplace: Workplace, arguments: list[str]) -> None:
    ended = workplace.run(*arguments)
    assert ended.code == 2
    assert "Traceback" not in ended.err
