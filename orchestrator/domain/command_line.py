"""Command lines: our own, quoted for a remedy or worded for Python, and those in settings."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMMAND = re.compile(r"(?:(?<=`)|(?<=: ))orchestrator (?=[a-z])")  # in a message, at the beginning of a command
_VERB = re.compile(r"`orchestrator (retry|runs|status|sweep)(?: ([^`\s]+))?`")
_IN_PYTHON = (  # what a message tells the user of the command, and how Python says it
    (re.compile("run the same command again"), "make the same call again"),
    (re.compile("`--overwrite` or `overwrite=True` in the sink"), "`overwrite=True`"),
    (re.compile("`--reuse (\\S+) --overwrite`"), r"`reuse=['\1'], overwrite=True`"),
    (re.compile("`--reuse (\\S+)`"), r"`reuse=['\1']`"),
    (re.compile("^--reuse (\\S+): "), r"reuse=['\1']: "),
    (re.compile("`--overwrite`"), "`overwrite=True`"),
    (re.compile("`--set allow_empty=True`"), "`Job(allow_empty=True)`"),
    (re.compile("`submit --after (\\S+)`"), r"`app.submit(..., after=['\1'])`"),
    (re.compile("correct `(\\w+)` in the job file"), r"correct `\1` of the job"),
    (re.compile("with --db( PATH)?"), "with `ledger=`"),
    (re.compile("--remember needs --sweep"), "`remember=True` needs `sweep=True`"),
    (re.compile("--max-cost needs"), "`max_cost=` needs"),
    (re.compile("^--(slo|rate|concurrency) "), r"`\1=` "),
    (re.compile("--rate, --concurrency and --sweep"), "`rate=`, `concurrency=` and `sweep=`"),
)


def typed(*words: object, **options: str) -> str:
    """Return `orchestrator item 7 'some id'`, quoted for a shell; words that look like options follow `--`."""
    texts = [str(word) for word in words]
    negative = next((place for place, text in enumerate(texts) if text.startswith("-")), None)
    before, after = (texts, []) if negative is None else (texts[:negative], ["--", *texts[negative:]])
    given = [part for name, value in options.items() for part in (f"--{name}", value)]
    return shlex.join(["orchestrator", *before, *given, *after])


def with_options(text: str, options: Sequence[str]) -> str:
    """Return a message in which every command repeats the global options that the user gave."""
    if not options:
        return text
    return _COMMAND.sub(lambda _: f"{shlex.join(['orchestrator', *options])} ", text)


def in_python(text: str, options: Sequence[str] = ()) -> str:
    """Return a message for a program: with calls in place of commands and arguments in place of options.

    Commands that have no call are for a shell, and repeat the global `options`.
    """
    for words, ours in _IN_PYTHON:
        text = words.sub(ours, text)
    return with_options(_VERB.sub(_called, text), options)


def _called(found: re.Match[str]) -> str:
    verb, run = found.groups()
    given = "" if run is None else run if run.isdigit() else repr(run)
    return f"`app.{verb}({given})`"


def check_arguments(command: object, what: str, example: str) -> None:
    """Raise `ValueError` unless the command is a list of arguments. `what` names the setting."""
    if isinstance(command, list | tuple) and command and all(isinstance(part, str) for part in command):
        return
    raise ValueError(
        f"{what} must be a list of arguments like {example}, not {command!r}; for a shell write ['sh', '-c', '...']"
    )
