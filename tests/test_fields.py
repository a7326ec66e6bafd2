"""docs/fields.md has every field of every kind that a job file can name, with its default, and the examples run."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import orchestrator
from orchestrator import endpoints, sinks, sources, wires
from tests.hf_service import hf_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.commands import Workplace

DOCS = Path(__file__).parents[1] / "docs"
_HEADING = re.compile(r"^### (`.*)$", re.MULTILINE)
ANSWERS = {"Result", "RunSummary", "RequestFailed"}  # what the Python API returns or raises
_ROW = re.compile(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", re.MULTILINE)


def kinds() -> Iterator[tuple[str, type[Any]]]:
    for module in (orchestrator, endpoints, wires, sources, sinks):
        for name in module.__all__:
            kind = getattr(module, name)
            if inspect.isclass(kind) and not getattr(kind, "_is_protocol", False) and name not in ANSWERS:
                yield name, kind


def documented() -> dict[str, list[tuple[str, str, str]]]:
    """Return fields with their defaults and descriptions, by kind."""
    parts = _HEADING.split((DOCS / "fields.md").read_text(encoding="utf-8"))[1:]
    sections = zip(parts[::2], parts[1::2], strict=True)
    return {name: _ROW.findall(text) for heading, text in sections for name in re.findall(r"`(\w+)`", heading)}


def default_of(kind: type[Any], parameter: inspect.Parameter) -> str:
    """Return the default as the page writes it."""
    default = parameter.default
    if default is parameter.empty:
        return "required"
    if dataclasses.is_dataclass(kind):
        fields = {field.name: field for field in dataclasses.fields(kind)}
        factory = fields[parameter.name].default_factory if parameter.name in fields else dataclasses.MISSING
        default = default if factory is dataclasses.MISSING else factory()
    match default:
        case enum.Enum():
            return f"`{json.dumps(default.value)}`"
        case str() | dict():
            return f"`{json.dumps(default)}`"
        case bool() | float() | tuple() | None:
            return f"`{default!r}`"
        case int():
            return f"`{default:_}`" if default >= 10_000 else f"`{default}`"
    return f"`{type(default).__name__}()`"


def test_every_kind_has_a_section_and_every_section_a_kind() -> None:
    assert documented().keys() == dict(kinds()).keys()


@pytest.mark.parametrize("name", dict(kinds()))
def test_every_field_has_a_line_with_its_default(name: str) -> None:
    kind = dict(kinds())[name]
    parameters = inspect.signature(kind).parameters.values()
    shown = documented()[name]
    assert [(field, default) for field, default, _ in shown] == [
        (one.name, default_of(kind, one)) for one in parameters
    ]
    assert all(words for _, _, words in shown)


def examples() -> list[str]:
    """Return the job files of the section on endpoints that are created, used and paused."""
    text = (DOCS / "endpoints.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text[text.index("## Create, work, pause") :], re.DOTALL)


@pytest.mark.parametrize("number", [0, 1])
def test_the_examples_of_create_work_and_pause_run(workplace: Workplace, number: int) -> None:
    example = examples()[number]
    assert "linger=300.0" in example
    (workplace.folder / "job.py").write_text(example.replace("linger=300.0", "linger=0.0"))
    (workplace.folder / "reviews.jsonl").write_text('{"id": "a", "text": "good"}\n{"id": "b", "text": "bad"}\n')
    with hf_service() as service:
        if number == 1:
            service.add(
                "reviews", "paused", model={"repository": "BAAI/bge-small-en-v1.5", "task": "feature-extraction"}
            )
        env = {"HF_TOKEN": service.token, "ORCHESTRATOR_HF_API_URL": f"{service.url}/v2"}
        ended = workplace.run("run", str(workplace.folder / "job.py"), "--json", env=env)
        assert ended.code == 0, ended.err
        left = service.endpoint("reviews").states
    assert ended.json["counts"]["completed"] == 2
    assert left[-1] == ["deleted", "paused"][number]
    assert "running" in left
