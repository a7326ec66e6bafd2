from __future__ import annotations

from asyncio import CancelledError

import orjson
import pytest

from orchestrator.domain.errors import FailureKind, RequestFailed
from orchestrator.engine.asking.parse import parsed, stored


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def test_a_stored_value_can_be_written_inside_another() -> None:
    kept = orjson.loads(stored(nested(246)))
    assert orjson.dumps({"items": [{"output": {"value": [kept]}}]})


@pytest.mark.parametrize("depth", [247, 254, 255, 5000])
def test_a_value_nested_too_deep_fails_and_is_not_stored(depth: int) -> None:
    with pytest.raises(RequestFailed, match="cannot be stored") as raised:
        stored(nested(depth))
    assert raised.value.kind is FailureKind.BAD_ANSWER
    with pytest.raises(RequestFailed) as raised:
        parsed(lambda _: nested(depth), 1)
    assert raised.value.kind is FailureKind.PARSE


def test_the_text_of_an_answer_is_stored_as_its_server_wrote_it() -> None:
    assert stored({"a": 100000.0}, '{"a": 1E5,  "a": 1.0}') == '{"a": 1E5,  "a": 1.0}'
    with pytest.raises(RequestFailed, match="cannot be stored"):
        stored(nested(250), "[" * 250 + "]" * 250)


class Unsayable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize("error", [Unsayable(), SystemExit(3), RecursionError(), CancelledError(), GeneratorExit()])
def test_any_exception_of_parse_fails_only_that_item(error: BaseException) -> None:
    def parse(_: object) -> object:
        raise error

    with pytest.raises(RequestFailed, match=type(error).__name__):
        parsed(parse, 1)
