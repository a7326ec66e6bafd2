"""A command of ours as a person types it: remedies with a name or a path in them, so that pasting works."""

from __future__ import annotations

import shlex


def typed(*words: object, **options: str) -> str:
    """`orchestrator item 7 'some id'`: quoted for a shell; what would be taken for an option stands behind `--`."""
    texts = [str(word) for word in words]
    negative = next((place for place, text in enumerate(texts) if text.startswith("-")), None)
    before, after = (texts, []) if negative is None else (texts[:negative], ["--", *texts[negative:]])
    given = [part for name, value in options.items() for part in (f"--{name}", value)]
    return shlex.join(["orchestrator", *before, *given, *after])
