"""The chat wire: conversations, images, JSON that fits, and refused or unfinished answers.

The responses wire has the same answers in the same formats.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from pydantic import BaseModel, Field, field_validator

from orchestrator.domain.answer import Answer, Note
from orchestrator.domain.errors import FailureKind, RequestFailed, UsageError
from orchestrator.domain.item import File
from orchestrator.endpoints import HttpEndpoint
from orchestrator.wires import HuggingFaceWire, OpenAIChatWire, OpenAIResponsesWire
from orchestrator.wires.extract import found_json
from orchestrator.wires.huggingface import for_batches
from orchestrator.wires.reask import Unfit, asked
from tests.wires.dialects import OPENAI, PNG, served
from tests.wires.test_conformance import opened, value_of

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from orchestrator.ports import DataPlane
    from orchestrator.wires.wire import Body

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


@pytest.mark.parametrize(
    "request_", [5, None, {"inputs": "hello"}, {"messages": "hello"}, ["hello"], {"messages": [[]]}]
)
async def test_an_invalid_conversation_is_rejected(request_: object) -> None:
    with pytest.raises(RequestFailed, match="a chat request is") as raised:
        await WIRE.pack([orjson.dumps(request_)])
    assert raised.value.kind is FailureKind.REJECTED


def test_the_answer_is_the_text_of_the_first_choice() -> None:
    choices = [{"index": 0, "message": {"role": "assistant", "content": "hi"}}, {"message": {"content": "ho"}}]
    assert WIRE.unpack(orjson.dumps({"id": "x", "choices": choices[:1]}), 1) == ["hi"]
    assert WIRE.unpack(orjson.dumps({"id": "x", "choices": choices}), 1) == [
        Answer("hi", notes=frozenset({Note.FIRST}))
    ]
    assert WIRE.unpack(orjson.dumps({"choices": [{"message": {"content": ""}}]}), 1) == [""]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", FailureKind.GARBLED),
        (b"<html>", FailureKind.GARBLED),
        (b'{"error": "in band"}', FailureKind.GARBLED),
        (b"[]", FailureKind.BAD_ANSWER),
        (b'{"choices": []}', FailureKind.BAD_ANSWER),
        (b'{"choices": [{"message": {"content": null}}]}', FailureKind.BAD_ANSWER),
        (b'{"choices": [{"text": "hi"}]}', FailureKind.BAD_ANSWER),
        (b'{"choices": {"message": {"content": "hi"}}}', FailureKind.BAD_ANSWER),
    ],
)
def test_invalid_answers_are_never_stored(content: bytes, kind: FailureKind) -> None:
    with pytest.raises(RequestFailed) as raised:
        WIRE.unpack(content, 1)
    assert (raised.value.kind, raised.value.status) == (kind, 200)


def test_a_batch_becomes_a_list_if_the_wire_has_lists() -> None:
    plain = HuggingFaceWire({"k": 1})
    assert for_batches(plain, None) is plain
    assert for_batches(plain, 1) is plain
    assert for_batches(plain, 8) == HuggingFaceWire({"k": 1}, lists=True)
    assert for_batches(WIRE, 1) is WIRE
    with pytest.raises(UsageError, match="one item"):
        for_batches(WIRE, 2)


def test_the_identity_covers_everything_that_shapes_an_answer() -> None:
    assert WIRE.identity == {"wire": "openai", "wire_model": "m", "parameters": {"temperature": 0, "seed": 1}}
    assert HuggingFaceWire().identity == {"wire": "huggingface", "parameters": {}, "lists": False}
    shaped = OpenAIChatWire("m", system="be brief", response_format=Person, extract="json")
    assert shaped.identity == {
        "wire": "openai",
        "wire_model": "m",
        "parameters": {},
        "system": "be brief",
        "response_format": Person.model_json_schema(),
        "extract": "json",
    }
    assert (
        shaped.identity
        == OpenAIChatWire(
            "m", system="be brief", response_format=Person.model_json_schema(), extract="json", reasks=7
        ).identity
    )
    plain = {"wire": "openai-responses", "wire_model": "m", "parameters": {}}
    assert OpenAIResponsesWire("m", reasks=7).identity == plain
    assert RESPONSES.identity == plain | {"response_format": Person.model_json_schema()}
    assert OpenAIResponsesWire("m", extract="json").identity == plain | {"extract": "json"}


# -- conversations -----------------------------------------------------------------------------------------------------


class Person(BaseModel):
    name: str
    age: int = Field(ge=0)

    @field_validator("name")
    @classmethod
    def known(cls, name: str) -> str:
        if name == "crash":
            raise KeyError(name)
        return name


@pytest.mark.parametrize(
    ("request_", "messages"),
    [
        ("hello", [SYSTEM, HELLO]),
        ({"messages": [HELLO]}, [SYSTEM, HELLO]),
        ([{"role": "developer", "content": "my own"}, HELLO], [{"role": "developer", "content": "my own"}, HELLO]),
    ],
)
async def test_the_system_prompt_comes_first_unless_the_request_has_its_own(request_: object, messages: object) -> None:
    packed = await OpenAIChatWire("m", system="be brief").pack([orjson.dumps(request_)])
    assert orjson.loads(packed.content) == {"model": "m", "messages": messages}


def stored(path: Path, content_type: str = "image/png") -> dict[str, str]:
    path.write_bytes(PNG)
    return File(str(path), hashlib.sha256(PNG).hexdigest(), content_type).as_json()


async def test_images_are_sent_as_data_urls(tmp_path: Path) -> None:
    image, ask = stored(tmp_path / "a.png"), {"type": "text", "text": "what is it?"}
    async with served(OPENAI) as server, opened_chat(server.url) as data:
        for content in ([ask, image], [ask, {"type": "image_url", "image_url": {"url": image}}]):
            request = [{"role": "user", "content": content}]
            (answer,) = await data.ask([orjson.dumps(request)])
            assert value_of(answer) == "WHAT IS IT? data:image/png;base64 of 28 bytes"
        for alone in (image, [{"role": "user", "content": image}]):
            (answer,) = await data.ask([orjson.dumps(alone)])
            assert value_of(answer) == "data:image/png;base64 of 28 bytes"


async def test_invalid_or_changed_images_are_rejected(tmp_path: Path) -> None:
    for request, said in [
        (stored(tmp_path / "a.pdf", "application/pdf"), "carries images only"),
        (stored(tmp_path / "b.png") | {"sha256": "0" * 64}, "has changed"),
        (stored(tmp_path / "c.png") | {"$file": str(tmp_path / "none.png")}, "cannot read"),
        (stored(tmp_path / "d.png") | {"$file": "\0"}, "cannot read"),
    ]:
        with pytest.raises(RequestFailed, match=said) as raised:
            await WIRE.pack([orjson.dumps(request)])
        assert raised.value.kind is FailureKind.REJECTED


async def test_an_object_that_only_resembles_a_file_is_data() -> None:
    part = {"$file": "/etc/passwd"}
    packed = await WIRE.pack([orjson.dumps([{"role": "user", "content": [part]}])])
    assert orjson.loads(packed.content)["messages"] == [{"role": "user", "content": [part]}]


# -- answers that must be JSON -----------------------------------------------------------------------------------------


def said(text: object, finish: str = "stop", **message: object) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text} | message, "finish_reason": finish}
    return orjson.dumps({"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 4}})


def responded(text: str, *, cut: bool = False) -> bytes:
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    ended = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    about = ended if cut else {"status": "completed"}
    return orjson.dumps(about | {"output": [message], "usage": {"input_tokens": 10, "output_tokens": 4}})


class Model:
    """Gives these answers, one after the other, in the dialect of the request."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.heard: list[Any] = []

    async def post(self, body: Body) -> bytes:
        self.heard.append(orjson.loads(body.content))
        return (said if "messages" in self.heard[-1] else responded)(self.texts.pop(0))


def turns(body: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the conversation in a body as roles and texts."""
    items = body["messages"] if "messages" in body else body["input"]
    texts = [item["content"] if isinstance(item["content"], str) else item["content"][0]["text"] for item in items]
    return list(zip([item["role"] for item in items], texts, strict=True))


CUT = frozenset({Note.CUT})
RIGHT, WRONG = '{"name": "Ada", "age": 36}', '{"name": "Ada", "age": -1}'
FORMATS = [OpenAIChatWire("m", response_format=kind) for kind in (Person, Person.model_json_schema())]
RESPONSES = OpenAIResponsesWire("m", response_format=Person)
EXTRACT = OpenAIChatWire("m", extract="json")


@pytest.mark.parametrize("wire", [*FORMATS, RESPONSES])
async def test_a_valid_answer_is_stored_as_json(wire: OpenAIChatWire | OpenAIResponsesWire) -> None:
    model = Model(RIGHT)
    assert await asked(wire, [b'"who?"'], model.post) == [Answer({"name": "Ada", "age": 36}, 10, 4)]
    wanted = {"name": "Person", "schema": Person.model_json_schema()}
    if isinstance(wire, OpenAIChatWire):
        assert model.heard[0]["response_format"] == {"type": "json_schema", "json_schema": wanted}
    else:
        assert model.heard[0]["text"] == {"format": {"type": "json_schema"} | wanted}


async def test_other_text_options_stay_and_a_format_of_the_user_wins() -> None:
    wire = OpenAIResponsesWire("m", {"text": {"verbosity": "low"}}, response_format={"type": "object"})
    format_ = {"type": "json_schema", "name": "answer", "schema": {"type": "object"}}
    packed = await wire.pack([b'"who?"'])
    assert orjson.loads(packed.content)["text"] == {"format": format_, "verbosity": "low"}
    own = {"input": "who?", "text": {"format": {"type": "json_object"}}}
    packed = await wire.pack([orjson.dumps(own)])
    assert orjson.loads(packed.content)["text"] == {"format": {"type": "json_object"}}


@pytest.mark.parametrize("wire", [*FORMATS, RESPONSES])
@pytest.mark.parametrize("wrong", [WRONG, "I do not know.", '{"name": "Ada"}', "[1]", '{"name": "A", "age": NaN}'])
async def test_an_invalid_answer_is_asked_again_with_the_reason(
    wire: OpenAIChatWire | OpenAIResponsesWire, wrong: str
) -> None:
    model = Model(wrong, WRONG, f"Sorry! ```json\n{RIGHT}\n```")
    assert await asked(wire, [b'"who?"'], model.post) == [Answer({"name": "Ada", "age": 36}, 30, 12)]
    first, *_, last = model.heard
    assert [who for who, _ in turns(last)] == ["user", "assistant", "user", "assistant", "user"]
    assert [text for who, text in turns(last) if who == "assistant"] == [wrong, WRONG]
    assert turns(last)[0][1] == "who?"
    assert "age" in turns(last)[-1][1]
    assert last | {"messages": None, "input": None} == first | {"messages": None, "input": None}


async def test_a_conversation_of_items_continues_with_the_reason() -> None:
    model, items = Model(WRONG, RIGHT), [{"role": "developer", "content": "brief"}, {"role": "user", "content": "who?"}]
    assert await asked(RESPONSES, [orjson.dumps(items)], model.post) == [Answer({"name": "Ada", "age": 36}, 20, 8)]
    assert model.heard[1]["input"][:2] == items
    part = {"type": "output_text", "text": WRONG, "annotations": []}
    about = {"type": "message", "id": "msg_2", "role": "assistant", "status": "completed"}
    assert model.heard[1]["input"][2] == about | {"content": [part]}
    assert [who for who, _ in turns(model.heard[1])] == ["developer", "user", "assistant", "user"]


@pytest.mark.parametrize("kind", [OpenAIChatWire, OpenAIResponsesWire])
@pytest.mark.parametrize("reasks", [0, 2])
async def test_requests_after_an_invalid_answer_are_limited(
    kind: type[OpenAIChatWire | OpenAIResponsesWire], reasks: int
) -> None:
    model = Model(*[WRONG] * 9)
    wire = kind("m", response_format=Person, reasks=reasks)
    with pytest.raises(Unfit, match="does not fit: age: Input should be greater than or equal to 0") as raised:
        await asked(wire, [b'"who?"'], model.post)
    assert raised.value.kind is FailureKind.BAD_ANSWER
    assert len(model.heard) == reasks + 1


async def test_uncounted_tokens_stay_unknown() -> None:
    texts = [WRONG, RIGHT]

    async def post(_body: Body) -> bytes:
        answer = orjson.loads(said(texts.pop(0)))
        del answer["usage"]
        return orjson.dumps(answer)

    assert await asked(FORMATS[0], [b'"who?"'], post) == [{"name": "Ada", "age": 36}]


async def test_asking_again_works_over_http() -> None:
    async with served(OPENAI) as server, opened_chat(server.url, response_format=Person) as data:
        server.instead = [said(WRONG), said(RIGHT)]
        assert await data.ask([b'"who?"']) == [Answer({"name": "Ada", "age": 36}, 20, 8)]
        assert len(server.asked) == 2


def test_any_json_schema_is_accepted() -> None:
    wire = OpenAIChatWire("m", response_format={"enum": ["yes", "no"], "title": "Yes or no?"})
    assert wire.unpack(said('"yes"'), 1) == [Answer("yes", 10, 4)]
    with pytest.raises(Unfit, match="'maybe' is not one of"):
        wire.unpack(said('"maybe"'), 1)
    with pytest.raises(Unfit, match="there is no JSON"):
        wire.unpack(said("yes"), 1)


@pytest.mark.parametrize("format_", [{"$ref": "#/nowhere"}, {"$ref": "http://127.0.0.1:9/schema.json"}, Person])
def test_a_format_that_cannot_be_checked_fails_the_item(format_: type[BaseModel] | dict[str, object]) -> None:
    with pytest.raises(RequestFailed, match="cannot check the answer") as raised:
        OpenAIChatWire("m", response_format=format_).unpack(said('{"name": "crash", "age": 1}'), 1)
    assert raised.value.kind is FailureKind.PARSE


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"response_format": {"type": "thing"}}, "response_format is no JSON schema"),
        ({"response_format": "json"}, "must be a JSON schema or a pydantic model"),
        ({"response_format": int}, "must be a JSON schema or a pydantic model"),
        ({"extract": "xml"}, "extract must be 'json'"),
        ({"reasks": -1}, "reasks must be a whole number"),
        ({"reasks": True}, "reasks must be a whole number"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], wrong: str) -> None:
    for kind in (OpenAIChatWire, OpenAIResponsesWire):
        with pytest.raises(ValueError, match=wrong):
            kind("m", **settings)


@pytest.mark.parametrize("wire", [*FORMATS, EXTRACT])
def test_truncated_json_is_not_an_answer_and_is_not_asked_again(wire: OpenAIChatWire) -> None:
    with pytest.raises(RequestFailed, match="truncated") as raised:
        wire.unpack(said(RIGHT[:-1], "length"), 1)
    assert not isinstance(raised.value, Unfit)
    assert raised.value.kind is FailureKind.REJECTED  # it would end there again


def test_a_truncated_response_is_text_but_not_json() -> None:
    assert OpenAIResponsesWire("m").unpack(responded("once upon a", cut=True), 1) == [Answer("once upon a", 10, 4, CUT)]
    with pytest.raises(RequestFailed, match="truncated") as raised:
        RESPONSES.unpack(responded(RIGHT[:-1], cut=True), 1)
    assert not isinstance(raised.value, Unfit)


def test_a_response_that_used_up_its_tokens_was_cut_even_if_the_server_calls_it_complete() -> None:
    wire = OpenAIResponsesWire("m", {"max_output_tokens": 4})
    assert wire.unpack(responded("once upon a"), 1) == [Answer("once upon a", 10, 4, CUT)]
    assert replace(wire, parameters={"max_output_tokens": 5}).unpack(responded("the end"), 1) == [
        Answer("the end", 10, 4)
    ]
    assert (
        replace(RESPONSES, parameters={"max_output_tokens": 4}).unpack(responded(RIGHT), 1)[0]
        == RESPONSES.unpack(responded(RIGHT), 1)[0]
    )


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_thoughts_without_a_text_are_not_an_answer(name: str) -> None:
    for text in ("", None):
        with pytest.raises(RequestFailed, match="no text in the answer") as raised:
            WIRE.unpack(said(text, **{name: "Let me think."}), 1)
        assert raised.value.kind is FailureKind.BAD_ANSWER
        with pytest.raises(RequestFailed, match="before it said anything"):
            WIRE.unpack(said(text, "length", **{name: "Let me think."}), 1)
        call: dict[str, Any] = {"tool_calls": [CALL], name: "Let me call."}
        assert WIRE.unpack(said(text, **call), 1) == [Answer({"content": None, "tool_calls": [CALL]}, 10, 4)]
    assert WIRE.unpack(said("", **{name: ""}), 1) == [Answer("", 10, 4)]


def test_truncated_text_is_an_answer() -> None:
    assert WIRE.unpack(said("once upon a", "length"), 1) == [Answer("once upon a", 10, 4, CUT)]


@pytest.mark.parametrize("wire", [WIRE, *FORMATS, EXTRACT])
def test_a_refusal_is_rejected_with_its_text(wire: OpenAIChatWire) -> None:
    for content, words in [
        (said(None, refusal="I cannot help with that"), "the model refused: I cannot help with that"),
        (said(None, "content_filter"), "its answer was filtered"),
        (said("half an", "content_filter"), "its answer was filtered"),
    ]:
        with pytest.raises(RequestFailed, match=words) as raised:
            wire.unpack(content, 1)
        assert raised.value.kind is FailureKind.REJECTED


# -- tools, and texts in parts -----------------------------------------------------------------------------------------

CALL = {"id": "c1", "type": "function", "function": {"name": "label", "arguments": '{"label": "pos"}'}}
ITEM = {"type": "function_call", "call_id": "c1", "name": "label", "arguments": '{"label": "pos"}'}


@pytest.mark.parametrize("finish", ["tool_calls", "stop"])
@pytest.mark.parametrize(("text", "kept"), [(None, None), ("", None), ("I look it up.", "I look it up.")])
def test_an_answer_with_tool_calls_is_an_object_with_the_calls(finish: str, text: str | None, kept: object) -> None:
    answer = Answer({"content": kept, "tool_calls": [CALL]}, 10, 4)
    assert WIRE.unpack(said(text, finish, tool_calls=[CALL]), 1) == [answer]


def test_tool_calls_with_invalid_numbers_are_not_stored() -> None:
    body = b'{"choices":[{"message":{"tool_calls":[{"function":{"name":"f","arguments":{"x":NaN}}}]}}]}'
    with pytest.raises(RequestFailed, match="a number that is none") as raised:
        WIRE.unpack(body, 1)
    assert raised.value.kind is FailureKind.GARBLED


def test_a_tool_call_in_the_old_form_is_converted_to_the_new_form() -> None:
    called = said(None, "function_call", function_call=CALL["function"])
    call = {"type": "function", "function": CALL["function"]}
    assert WIRE.unpack(called, 1) == [Answer({"content": None, "tool_calls": [call]}, 10, 4)]


def test_a_response_with_tool_calls_is_an_object_with_its_items() -> None:
    answer = orjson.loads(responded("I look it up."))
    answer["output"] += [{"type": "reasoning"}, {"type": "web_search_call", "id": "w"}, ITEM]
    wire = OpenAIResponsesWire("m")
    assert wire.unpack(orjson.dumps(answer), 1) == [Answer({"content": "I look it up.", "tool_calls": [ITEM]}, 10, 4)]
    answer["output"] = [ITEM, ITEM]
    assert wire.unpack(orjson.dumps(answer), 1) == [Answer({"content": None, "tool_calls": [ITEM, ITEM]}, 10, 4)]


@pytest.mark.parametrize("wire", [WIRE, OpenAIResponsesWire("m")])
def test_truncated_tool_calls_are_not_an_answer(wire: OpenAIChatWire | OpenAIResponsesWire) -> None:
    cut = orjson.loads(responded("", cut=True))
    body = said(None, "length", tool_calls=[CALL]) if wire is WIRE else orjson.dumps(cut | {"output": [ITEM]})
    with pytest.raises(RequestFailed, match="where it calls tools; raise max_") as raised:
        wire.unpack(body, 1)
    assert raised.value.kind is FailureKind.REJECTED


@pytest.mark.parametrize(
    ("choice", "due"),
    [
        ("required", True),
        ("any", True),  # Mistral's word
        ({"type": "function", "function": {"name": "label"}}, True),
        ({"type": "function", "name": "label"}, True),
        ({"type": "allowed_tools", "mode": "required", "tools": []}, True),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}}, True),
        ({"type": "allowed_tools", "mode": "auto", "tools": []}, False),
        ({"type": "web_search"}, False),  # the server calls it
        ("auto", False),
        ("none", False),
        (None, False),
    ],
)
def test_plain_text_is_not_an_answer_if_a_call_is_demanded(choice: object, *, due: bool) -> None:
    demanding = {"tools": [], "tool_choice": choice}
    chat = OpenAIChatWire("m", demanding)
    response = {
        "status": "completed",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "x"}]}],
    }
    asked: list[tuple[OpenAIChatWire | OpenAIResponsesWire, bytes]] = [
        (chat, said("x")),
        (OpenAIResponsesWire("m", demanding), orjson.dumps(response)),
    ]
    for wire, answer in asked:
        if due:
            with pytest.raises(RequestFailed, match="tool_choice demands a call") as raised:
                wire.unpack(answer, 1)
            assert raised.value.kind is FailureKind.BAD_ANSWER
        else:
            assert [getattr(entry, "value", entry) for entry in wire.unpack(answer, 1)] == ["x"]
    if due:
        with pytest.raises(RequestFailed, match="token limit, before it calls a tool; raise max_tokens"):
            chat.unpack(said("x", "length"), 1)


@pytest.mark.parametrize("wires_own", ["required", "auto", None])
@pytest.mark.parametrize("own", ["required", "auto", None])
async def test_whether_a_call_is_demanded_is_a_matter_of_the_request_that_is_sent(
    wires_own: str | None, own: str | None
) -> None:
    parameters = {} if wires_own is None else {"tool_choice": wires_own}
    theirs = {} if own is None else {"tool_choice": own}
    message = {"role": "user", "content": 'a "tool_choice"'}
    text = {"type": "output_text", "text": "x"}
    response = {"status": "completed", "output": [{"type": "message", "content": [text]}]}
    for wire, request, answer in (
        (OpenAIChatWire("m", parameters), {"messages": [message], **theirs}, said("x")),
        (OpenAIResponsesWire("m", parameters), {"input": [message], **theirs}, orjson.dumps(response)),
    ):
        demanded: object = None

        async def post(body: Body, answer: bytes = answer) -> bytes:
            nonlocal demanded
            demanded = orjson.loads(body.content).get("tool_choice")
            return answer

        try:
            (entry,) = await asked(wire, [orjson.dumps(request)], post)
        except RequestFailed as failure:
            entry = failure
        assert isinstance(entry, RequestFailed) == (demanded == "required")
        assert demanded == (own or wires_own)


async def test_a_response_is_cut_at_the_limit_of_its_own_request() -> None:
    message = {"type": "message", "content": [{"type": "output_text", "text": "x"}]}
    response = {"status": "completed", "output": [message], "usage": {"input_tokens": 3, "output_tokens": 2}}
    request = orjson.dumps({"input": "hello", "max_output_tokens": 2})
    (entry,) = OpenAIResponsesWire("m").reading([request]).unpack(orjson.dumps(response), 1)
    assert isinstance(entry, Answer)
    assert entry.notes == {Note.CUT}


def test_if_json_is_requested_a_tool_call_is_not_an_answer_but_text_beside_it_is() -> None:
    for wire in (*FORMATS, EXTRACT):
        assert wire.unpack(said(RIGHT, tool_calls=[CALL]), 1) == [Answer(orjson.loads(RIGHT), 10, 4)]
        with pytest.raises(RequestFailed, match="no text in the answer") as raised:
            wire.unpack(said(None, "tool_calls", tool_calls=[CALL]), 1)
        assert raised.value.kind is FailureKind.BAD_ANSWER


def test_the_text_parts_of_a_message_are_joined() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "let me think"}]}
    parts = [thought, {"type": "text", "text": "half "}, {"type": "text", "text": "and half"}]
    assert WIRE.unpack(said(parts), 1) == [Answer("half and half", 10, 4)]
    assert FORMATS[0].unpack(said([thought, {"type": "text", "text": RIGHT}]), 1) == [
        Answer(orjson.loads(RIGHT), 10, 4)
    ]
    with pytest.raises(RequestFailed, match="before it said anything"):
        WIRE.unpack(said([thought], "length"), 1)
    with pytest.raises(RequestFailed, match="the model refused: no"):
        WIRE.unpack(said([{"type": "refusal", "refusal": "no"}]), 1)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', {"a": 1}),
        ('Sure [1]: {"a": [1, {"b": 2}]} and {"c": 3}', {"a": [1, {"b": 2}]}),
        ('```json\n{"a": 1}\n```\nbut not [1, 2, 3, 4, 5, 6, 7, 8]', {"a": 1}),
        ("```\nplain\n```\n[1]", [1]),
        ('```json\n{"a": "`x`"}```', {"a": "`x`"}),
        ('set {x} then {"a": 1}', {"a": 1}),
        ("[1, 2", None),
        ('"text"', None),
        ("5", None),
        ('{"a": NaN}', None),
        ('{"a": "\\ud800"}', None),
        ("", None),
        ("[" * 100_000, None),
        ('{"' * 100_000, None),
    ],
)
def test_json_inside_text_is_found(text: str, found: object) -> None:
    assert found_json(text) == found
    if found is None:
        with pytest.raises(RequestFailed, match="no JSON in the answer"):
            EXTRACT.unpack(said(text), 1)
    else:
        assert EXTRACT.unpack(said(text), 1) == [Answer(found, 10, 4)]


def opened_chat(url: str, response_format: type[BaseModel] | None = None) -> AbstractAsyncContextManager[DataPlane]:
    return opened(HttpEndpoint(url, wire=OpenAIChatWire("m", response_format=response_format)))
