"""Command lines: our own, quoted for a remedy, and those in settings."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMMAND = re.compile(r"(?:(?<=`)|(?<=: ))orchestrator (?=[a-z])")  # in a message, at the beginning of a command


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


def check_arguments(command: object, what: str, example: str) -> None:
    """Raise `ValueError` unless the command is a list of arguments. `what` names the setting."""
    if isinstance(command, list | tuple) and command and all(isinstance(part, str) for part in command):
        return
    raise ValueError(
        f"{what} must be a list of arguments like {example}, not {command!r}; for a shell write ['sh', '-c', '...']"
    )
