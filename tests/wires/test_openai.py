from __future__ import annotations

import orjson
import pytest

from orchestrator.domain.errors import FailureKind, RequestFailed, UsageError
from orchestrator.wires.huggingface import HuggingFaceWire
from orchestrator.wires.kinds import for_batches, identity_of
from orchestrator.wires.openai import OpenAIChatWire

HELLO = {"role": "user", "content": "hello"}
SYSTEM = {"role": "system", "content": "be brief"}
WIRE = OpenAIChatWire("m", {"temperature": 0, "seed": 1})


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        ("hello", {"messages": [HELLO]}),
        ([SYSTEM, HELLO], {"messages": [SYSTEM, HELLO]}),
        ({"messages": [HELLO], "max_tokens": 5}, {"messages": [HELLO], "max_tokens": 5}),
        ({"messages": [HELLO], "seed": 2, "model": "n"}, {"messages": [HELLO], "seed": 2, "model": "n"}),
    ],
)
async def test_requests_are_packed_and_their_own_parameters_win(request_: object, body: dict[str, object]) -> None:
    packed = await WIRE.pack([orjson.dumps(request_)])
    assert orjson.loads(packed.content) == {"model": "m", "temperature": 0, "seed": 1} | body
    assert packed.content_type == "application/json"


@pytest.mark.parametrize("request_", [5, None, {"inputs": "hello"}, {"messages": "hello"}])
async def test_what_is_no_conversation_is_rejected(request_: object) -> None:
    with pytest.raises(RequestFailed, match="a chat request is") as raised:
        await WIRE.pack([orjson.dumps(request_)])
    assert raised.value.kind is FailureKind.REJECTED


def test_the_answer_is_the_first_choices_text() -> None:
    choices = [{"index": 0, "message": {"role": "assistant", "content": "hi"}}, {"message": {"content": "ho"}}]
    assert WIRE.unpack(orjson.dumps({"id": "x", "choices": choices}), 1) == ["hi"]
    assert WIRE.unpack(orjson.dumps({"choices": [{"message": {"content": ""}}]}), 1) == [""]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"error": "in band"}',
        b'{"choices": []}',
        b'{"choices": [{"message": {"content": null}}]}',
        b'{"choices": [{"text": "hi"}]}',
        b'{"choices": {"message": {"content": "hi"}}}',
    ],
)
def test_what_is_not_an_answer_is_never_stored(content: bytes) -> None:
    with pytest.raises(RequestFailed) as raised:
        WIRE.unpack(content, 1)
    assert (raised.value.kind, raised.value.status) == (FailureKind.BAD_ANSWER, 200)


def test_a_batch_makes_lists_where_the_wire_has_them() -> None:
    plain = HuggingFaceWire({"k": 1})
    assert for_batches(plain, None) is plain
    assert for_batches(plain, 1) is plain
    assert for_batches(plain, 8) == HuggingFaceWire({"k": 1}, lists=True)
    assert for_batches(WIRE, 1) is WIRE
    with pytest.raises(UsageError, match="one item"):
        for_batches(WIRE, 2)


def test_identity_is_all_that_shapes_an_answer() -> None:
    assert identity_of(WIRE) == {"wire": "openai", "wire_model": "m", "parameters": {"temperature": 0, "seed": 1}}
    assert identity_of(HuggingFaceWire()) == {"wire": "huggingface", "parameters": {}, "lists": False}
