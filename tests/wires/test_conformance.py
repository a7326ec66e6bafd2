"""Every wire against a strict server of its dialect: right answers, in order, under any base URL, or a failure."""

from __future__ import annotations

import base64
import hashlib
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from yarl import URL

from orchestrator import Policy, wires
from orchestrator.domain.answer import Answer
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import FailureKind, RequestFailed, UsageError
from orchestrator.domain.item import File
from orchestrator.endpoints import CommandEndpoint, HttpEndpoint, HuggingFaceEndpoint, ServerlessEndpoint, endpoint_from
from orchestrator.kinds import WIRES
from orchestrator.testing import WireConformance
from orchestrator.wires import (
    GradioWire,
    HuggingFaceWire,
    OpenAIBatchWire,
    OpenAIChatWire,
    OpenAICompletionsWire,
    OpenAIEmbeddingsWire,
    OpenAIResponsesWire,
    OpenAITranscriptionsWire,
    RawJsonWire,
    TeiWire,
    TgiWire,
    VllmRerankWire,
    VllmScoreWire,
    Wire,
)
from orchestrator.wires.huggingface import for_batches
from tests.wires.dialects import (
    CUSTOM,
    GRADIO,
    OPENAI,
    PNG,
    TEI,
    TEXT_IN,
    TEXT_OUT,
    TGI,
    TOOLKIT,
    VLLM,
    served,
    told,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from orchestrator.domain.batch_lines import Route
    from orchestrator.ports import DataPlane, Endpoint
    from orchestrator.wires.wire import Body


@dataclass
class Case:
    """A wire, requests of every shape that it accepts, and the answers of a correct server."""

    wire: Wire
    routes: Mapping[str, Any]
    requests: list[object]
    values: list[object]
    tokens: tuple[int | None, int | None] | None = None
    toml: dict[str, object] = field(default_factory=dict)


RANKED = [{"index": 1, "score": 0.3}, {"index": 0, "score": 0.1}]
RESULTS = [
    {"index": 1, "document": {"text": "bcd"}, "relevance_score": 0.3},
    {"index": 0, "document": {"text": "a"}, "relevance_score": 0.1},
]
NEAR = {"source_sentence": "q", "sentences": ["a", "bcd"]}
PAIR = {"text_1": "abc", "text_2": "a"}
SOME = {"temperature": 0, "max_tokens": 9}
BATCHES: list[tuple[Route, list[object], int | None]] = [
    ("/v1/chat/completions", [{"model": "m", "messages": [{"role": "user", "content": "c"}], "seed": 1}], TEXT_OUT),
    ("/v1/completions", [{"model": "m", "prompt": "c"}], TEXT_OUT),
    ("/v1/embeddings", [{"model": "m", "input": "ab"}, {"model": "m", "input": "c"}], None),
    ("/v1/responses", [{"model": "m", "input": "d", "stream": False}], TEXT_OUT),
]
CASES = {
    "huggingface": Case(
        HuggingFaceWire({"k": 1}),
        TOOLKIT,
        ["ab", {"inputs": "ab", "parameters": {"k": 2}}, {"question": "ab", "context": "c"}],
        [
            {"said": "AB", "parameters": {"k": 1}},
            {"said": "AB", "parameters": {"k": 2}},
            {"answer": "AB", "score": 0.5},
        ],
        toml={"kind": "huggingface", "parameters": {"k": 1}},
    ),
    "huggingface lists": Case(HuggingFaceWire(lists=True), TOOLKIT, ["ab", {"inputs": "c"}], ["AB", "C"]),
    "chat": Case(
        OpenAIChatWire("m", SOME),
        OPENAI,
        ["ab", [{"role": "user", "content": "c"}], {"messages": [{"role": "user", "content": "d"}], "seed": 1}],
        ["AB", "C", "D"],
        (TEXT_IN, TEXT_OUT),
        {"kind": "openai-chat", "model": "m", "parameters": SOME},
    ),
    "completions": Case(
        OpenAICompletionsWire("m", SOME),
        OPENAI,
        ["ab", {"prompt": "c"}, "d"],
        ["AB", "C", "D"],
        (TEXT_IN, TEXT_OUT),
        {"kind": "openai-completions", "model": "m", "parameters": SOME},
    ),
    "embeddings": Case(
        OpenAIEmbeddingsWire("m"),
        OPENAI,
        ["ab", {"input": "c"}],
        [[0.5, -1.5], [0.25, -1.5]],
        (TEXT_IN, None),
        {"kind": "openai-embeddings", "model": "m"},
    ),
    "embeddings base64": Case(
        OpenAIEmbeddingsWire("m", {"encoding_format": "base64"}),
        OPENAI,
        ["ab", {"input": "c"}],
        [[0.5, -1.5], [0.25, -1.5]],
        (TEXT_IN, None),
    ),
    "responses": Case(
        OpenAIResponsesWire("m", {"instructions": "be brief"}),
        OPENAI,
        ["ab", [{"role": "user", "content": "c"}], {"input": "d"}],
        ["AB", "C", "D"],
        (TEXT_IN, TEXT_OUT),
        {"kind": "openai-responses", "model": "m", "parameters": {"instructions": "be brief"}},
    ),
    **{
        f"batch {route}": Case(
            OpenAIBatchWire(route, "m"),
            OPENAI,
            bodies,
            [OPENAI[route](body) for body in bodies],
            (TEXT_IN, tokens_out),
            {"kind": "openai-batch", "route": route, "model": "m"},
        )
        for route, bodies, tokens_out in BATCHES
    },
    "score": Case(
        VllmScoreWire("m"), VLLM, [PAIR, ["a", "b"]], [2.5, 0.5], (TEXT_IN, None), {"kind": "vllm-score", "model": "m"}
    ),
    "rerank": Case(
        VllmRerankWire("m"),
        VLLM,
        [{"query": "q", "documents": ["a", "bcd"]}],
        [RESULTS],
        (TEXT_IN, None),
        {"kind": "vllm-rerank", "model": "m"},
    ),
    "tei embed": Case(
        TeiWire("embed", {"truncate": True}),
        TEI,
        ["ab", {"inputs": "c"}],
        [[0.5, -1.5], [0.25, -1.5]],
        toml={"kind": "tei", "route": "embed", "parameters": {"truncate": True}},
    ),
    "tei embed_all": Case(TeiWire("embed_all"), TEI, ["ab"], [[[0.5, -1.5], [0.5, -1.5]]]),
    "tei embed_sparse": Case(
        TeiWire("embed_sparse"), TEI, ["ab", "c"], [[{"index": 2, "value": 0.5}], [{"index": 1, "value": 0.5}]]
    ),
    "tei predict": Case(
        TeiWire("predict"),
        TEI,
        ["ab", ["c", "d"], {"inputs": ["e", "f"]}],
        [[{"label": "AB", "score": 0.25}], [{"label": "C+D", "score": 0.5}], [{"label": "E+F", "score": 0.5}]],
    ),
    "tei rerank": Case(TeiWire("rerank"), TEI, [{"query": "q", "texts": ["a", "bcd"]}], [RANKED]),
    "tei similarity": Case(TeiWire("similarity"), TEI, [NEAR, {"inputs": NEAR}], [[0.1, 0.3], [0.1, 0.3]]),
    "tgi": Case(
        TgiWire({"details": True, "decoder_input_details": True}),
        TGI,
        ["ab", {"inputs": "c", "parameters": {"max_new_tokens": 3}}],
        ["AB", "C"],
        (TEXT_IN, TEXT_OUT),
        {"kind": "tgi", "parameters": {"details": True, "decoder_input_details": True}},
    ),
    "raw json": Case(
        RawJsonWire("/api/ask", body={"q": "{text}", "options": {"all": "{request}"}}, answer="data.0.text"),
        CUSTOM,
        [{"text": "ab"}],
        ["AB"],
        toml={
            "kind": "raw-json",
            "path": "/api/ask",
            "body": {"q": "{text}", "options": {"all": "{request}"}},
            "answer": "data.0.text",
        },
    ),
    "gradio": Case(
        GradioWire("/label", [5]),
        GRADIO,
        ["ab", ["c", 7]],
        [{"label": "AB"}, {"label": "C"}],
        toml={"kind": "gradio", "function": "label", "more": [5]},
    ),
}
DOCUMENTATION = Path(__file__).parents[2] / "docs/wires.md"
every_wire = pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])


@asynccontextmanager
async def opened(endpoint: Endpoint, policy: Policy | None = None) -> AsyncIterator[DataPlane]:
    async with endpoint.control() as control:
        await control.resume()
        while await control.state() is not EndpointState.AWAKE:
            pass
        async with control.connect(policy or Policy()) as data:
            yield data


def value_of(answer: object) -> object:
    return answer.value if isinstance(answer, Answer) else answer


class TestEveryWire(WireConformance):
    @pytest.fixture(autouse=True, params=CASES.values(), ids=list(CASES))
    def _of_this_case(self, request: pytest.FixtureRequest) -> None:
        self.case: Case = request.param
        self.requests, self.answers, self.tokens = self.case.requests, self.case.values, self.case.tokens

    def wire(self) -> Wire:
        return self.case.wire

    def shares_requests(self) -> bool:
        return self.case.wire.takes_lists and self.case.wire != HuggingFaceWire({"k": 1})  # lists have another shape

    def respond(self, body: Body) -> bytes:
        handler = self.case.routes[self.case.wire.url(URL("http://h/")).path]
        assert body.content_type == "application/json"
        answer = handler(orjson.loads(body.content))
        return told(answer) if isinstance(self.case.wire, GradioWire) else orjson.dumps(answer)

    def accept(self) -> bytes:
        return b'{"event_id": "0"}'


# -- right answers -----------------------------------------------------------------------------------------------------


@every_wire
async def test_an_honest_server_gives_the_right_answers(case: Case) -> None:
    async with served(case.routes, token="t") as server:
        endpoint = HttpEndpoint(server.url, wire=case.wire, headers={"Authorization": "Bearer t"})
        async with opened(endpoint) as data:
            for request, value in zip(case.requests, case.values, strict=True):
                (answer,) = await data.ask([orjson.dumps(request)])
                assert answer == (value if case.tokens is None else Answer(value, *case.tokens))


async def test_a_toolkit_gets_lists_if_the_policy_has_batches() -> None:
    async with (
        served(TOOLKIT) as server,
        opened(HttpEndpoint(server.url, wire=HuggingFaceWire()), Policy(batch_size=3)) as data,
    ):
        assert await data.ask([b'"ab"', b'"c"']) == ["AB", "C"]
        assert len(server.asked) == 1


@every_wire
@pytest.mark.parametrize("prefix", ["", "/behind/a/proxy"])
async def test_a_base_url_may_be_written_in_any_form(case: Case, prefix: str) -> None:
    (request, *_), (value, *_) = case.requests, case.values
    async with served(case.routes, prefix=prefix) as server:
        base = URL(server.url)
        whole = case.wire.url(base)
        assert case.wire.url(whole) == whole
        ways = [base, base / "", whole, whole / "", base / "v1", base / "v1" / ""]
        if isinstance(case.wire, HuggingFaceWire):
            ways = [base / "", base / "predict"]
        elif isinstance(case.wire, RawJsonWire | GradioWire):
            ways = ways[:4]
        for written in ways:
            async with opened(HttpEndpoint(f"{written}?a=1%202", wire=case.wire)) as data:
                (answer,) = await data.ask([orjson.dumps(request)])
            assert value_of(answer) == value
        assert {path.partition("?")[2] for path, _ in server.asked} == {"a=1%202"}


BASES = [
    ("http://h:1/api/v3/", "http://h:1/api/v3/chat/completions"),
    ("http://h/v1beta/openai", "http://h/v1beta/openai/chat/completions"),
    ("http://h/deployments/d/chat/completions?api-version=1", "http://h/deployments/d/chat/completions?api-version=1"),
    ("http://h//v1//", "http://h/v1/chat/completions"),
    ("http://h/a%2Fb/v1/chat", "http://h/a%2Fb/v1/chat/completions"),
    ("https://router.huggingface.co/v1", "https://router.huggingface.co/v1/chat/completions"),
]


@pytest.mark.parametrize(("base", "whole"), BASES)
def test_a_version_or_route_in_the_url_is_not_added_again(base: str, whole: str) -> None:
    wire = OpenAIChatWire("m")
    assert str(wire.url(URL(base))) == whole
    assert wire.url(wire.url(URL(base))) == wire.url(URL(base))


def test_a_wire_without_a_route_uses_the_url_unchanged() -> None:
    for base in ("http://h/", "http://h/a/v1", "http://h/a/?b=c"):
        assert HuggingFaceWire().url(URL(base)) == URL(base)
        assert RawJsonWire().url(URL(base)) == URL(base)


async def test_another_method_is_used_if_set() -> None:
    wire = RawJsonWire("/api/ask", method="PUT", answer="data.0.text")
    async with served(CUSTOM, method="PUT") as server, opened(HttpEndpoint(server.url, wire=wire)) as data:
        assert await data.ask([b'{"q":"ab","options":1}']) == ["AB"]


# -- files -------------------------------------------------------------------------------------------------------------


def file(path: Path, content_type: str = "image/png") -> dict[str, str]:
    path.write_bytes(PNG)
    return File(str(path), hashlib.sha256(PNG).hexdigest(), content_type).as_json()


@pytest.mark.parametrize(
    ("stored", "sent"), [("image/png", PNG), ("audio/mp4", PNG), ("audio/mpeg", PNG), ("image/x-none", None)]
)
async def test_a_file_is_the_body_with_a_content_type_known_to_the_toolkit(
    tmp_path: Path, stored: str, sent: bytes | None
) -> None:
    request = orjson.dumps(file(tmp_path / "a", stored))
    async with served(TOOLKIT) as server, opened(HttpEndpoint(server.url, wire=HuggingFaceWire())) as data:
        if sent is None:
            with pytest.raises(RequestFailed, match="415"):
                await data.ask([request])
            return
        assert await data.ask([request]) == [[{"label": f"{len(PNG)} bytes", "score": 0.5}]]
        assert server.asked == [("/", PNG)]


async def test_a_file_with_parameters_is_base64_in_json(tmp_path: Path) -> None:
    stored = file(tmp_path / "a.png")
    encoded = base64.b64encode(PNG).decode()
    wanted: list[tuple[HuggingFaceWire, object, object]] = [
        (HuggingFaceWire({"top_k": 1}), stored, {"inputs": encoded, "parameters": {"top_k": 1}}),
        (HuggingFaceWire(), {"inputs": stored, "parameters": {"k": 2}}, {"inputs": encoded, "parameters": {"k": 2}}),
        (
            HuggingFaceWire(),
            {"image": stored, "question": "q"},
            {"inputs": {"image": encoded, "question": "q"}},
        ),
    ]
    for wire, request, body in wanted:
        packed = await wire.pack([orjson.dumps(request)])
        assert packed.content_type == "application/json"
        assert orjson.loads(packed.content) == body
    packed = await HuggingFaceWire().pack([orjson.dumps({"inputs": stored})])
    assert (packed.content, packed.content_type) == (PNG, "image/png")
    with pytest.raises(RequestFailed, match="cannot be in a list"):
        await HuggingFaceWire(lists=True).pack([orjson.dumps(stored)])
    packed = await RawJsonWire(body={"image": "{file}"}).pack([orjson.dumps({"file": stored})])
    assert orjson.loads(packed.content) == {"image": encoded}


# -- wrong answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in CASES if name != "huggingface"])
def test_only_a_custom_handler_may_answer_with_an_object(name: str) -> None:
    for nothing in (b"{}", b'{"message": "hello"}'):
        with pytest.raises(RequestFailed):
            CASES[name].wire.unpack(nothing, 1)


EMBEDDINGS = b'{"data": [{"index": 1, "embedding": [1.5]}, {"index": %b, "embedding": %b}]}'


@pytest.mark.parametrize(
    ("index", "vector", "fails"),
    [(b"0", b"[2.5]", [2]), (b"2", b"[null]", [0, 2]), (b"0", b'"AAA"', [0, 2]), (b"0", b'"AADAfw=="', [0, 2])],
)
def test_a_missing_or_wrong_answer_fails_alone(index: bytes, vector: bytes, fails: list[int]) -> None:
    answers = OpenAIEmbeddingsWire("m").unpack(EMBEDDINGS % (index, vector), 3)
    assert [place for place, answer in enumerate(answers) if isinstance(answer, RequestFailed)] == fails
    assert answers[1] == [1.5]


def test_a_server_that_does_not_number_answers_gets_single_requests_from_then_on() -> None:
    entry = b'{"index": 0, "embedding": [1.5]}'
    wire = OpenAIEmbeddingsWire("m")
    with pytest.raises(RequestFailed, match="asked 3 inputs, got answers that all have the index 0") as failure:
        wire.unpack(b'{"data": [%b, %b, %b]}' % (entry, entry, entry), 3)
    assert failure.value.most == 1
    assert wire.unpack(b'{"data": [%b]}' % entry, 1) == [[1.5]]


@pytest.mark.parametrize("index", [b"1", b"3", b"-1", b'"0"', b"null", b"true", b"[]"])
def test_indistinguishable_answers_fail_together(index: bytes) -> None:
    with pytest.raises(RequestFailed, match="asked 3 inputs, got answers to"):
        OpenAIEmbeddingsWire("m").unpack(EMBEDDINGS % (index, b"[2.5]"), 3)


@pytest.mark.parametrize("wire", [HuggingFaceWire(lists=True), TeiWire("embed")])
@pytest.mark.parametrize("content", [b"[[1.5]]", b"[[1.5],[1.5],[1.5]]", b"[]", b"{}"])
def test_a_list_of_the_wrong_length_answers_no_item(wire: Wire, content: bytes) -> None:
    with pytest.raises(RequestFailed, match="asked 2 inputs, got"):
        wire.unpack(content, 2)


@pytest.mark.parametrize("spoilt", [b'{"error":"no"}', b"null", b"[0.5,null]", b"[null]", b'[[{"error":{"a":1}}]]'])
def test_one_invalid_entry_in_a_list_affects_no_other(spoilt: bytes) -> None:
    first, second = HuggingFaceWire(lists=True).unpack(b"[[0.5]," + spoilt + b"]", 2)
    assert first == [0.5]
    assert isinstance(second, RequestFailed)


@pytest.mark.parametrize(
    ("wire", "answer", "kind"),
    [
        (OpenAICompletionsWire("m"), {"choices": [{"text": "a", "finish_reason": "content_filter"}]}, "rejected"),
        (OpenAICompletionsWire("m"), {"choices": [{"text": None}]}, "bad_answer"),
        (OpenAIEmbeddingsWire("m"), {"data": [{"vector": [1.5]}]}, "garbled"),
        (OpenAIEmbeddingsWire("m"), {"data": [{"embedding": ""}]}, "garbled"),
        (OpenAIEmbeddingsWire("m"), {"data": [{"embedding": [True]}]}, "garbled"),
        (VllmScoreWire("m"), {"data": [{"index": 0, "score": None}]}, "bad_answer"),
        (VllmScoreWire("m"), {"data": [{"index": 0, "score": True}]}, "bad_answer"),
        (TeiWire("predict"), [[{"label": "A", "score": None}]], "bad_answer"),
        (TeiWire("embed_all"), [[]], "bad_answer"),
    ],
)
def test_an_entry_without_a_value_fails_alone(wire: Wire, answer: object, kind: str) -> None:
    (failure,) = wire.unpack(orjson.dumps(answer), 1)
    assert isinstance(failure, RequestFailed)
    assert failure.kind == kind


@pytest.mark.parametrize("results", [[{"index": 0}], [{"relevance_score": 1}], {}, None, [1]])
def test_a_ranking_without_scores_is_not_an_answer(results: object) -> None:
    with pytest.raises(RequestFailed, match="no results"):
        VllmRerankWire("m").unpack(orjson.dumps({"results": results}), 1)


def test_uncounted_tokens_are_unknown() -> None:
    assert TgiWire().unpack(b'[{"generated_text":"a"}]', 1) == ["a"]
    content = b'{"generated_text":"a","details":{"generated_tokens":5,"prefill":[]}}'
    assert TgiWire().unpack(content, 1) == [Answer("a", None, 5)]
    with pytest.raises(RequestFailed, match="no generated_text"):
        TgiWire().unpack(b'{"generated_text":["a"]}', 1)


async def test_tgi_is_asked_for_the_field_that_marks_truncated_text() -> None:
    for parameters, sent in ({}, {"details": True}), ({"details": False}, {"details": False}):
        packed = await TgiWire(parameters).pack([b'"a"'])
        assert orjson.loads(packed.content) == {"inputs": "a", "parameters": sent}
    assert TgiWire().identity == {"wire": "tgi", "parameters": {}}


NO_NUMBERS = ["NaN", "-Infinity", "1e999", "1" * 400, "1" * 9000]


@pytest.mark.parametrize("number", NO_NUMBERS)
@pytest.mark.parametrize(
    ("wire", "body", "answer"),
    [
        (OpenAIChatWire("m"), '{"choices":[{"message":{"content":"a"},"logprobs":{"x":[%s]}}]}', "a"),
        (OpenAICompletionsWire("m"), '{"choices":[{"text":"a","logprobs":%s}]}', "a"),
        (OpenAIEmbeddingsWire("m"), '{"data":[{"embedding":[1.0]}],"took":%s}', [1.0]),
        (
            OpenAIResponsesWire("m"),
            '{"status":"completed","output":[%s,{"type":"message","content":[{"type":"output_text","text":"a"}]}]}',
            "a",
        ),
        (TgiWire(), '{"generated_text":"a","details":{"tokens":[{"logprob":%s}]}}', "a"),
        (VllmScoreWire("m"), '{"data":[{"score":0.5}],"usage":{"prompt_tokens":%s}}', 0.5),
        (RawJsonWire(answer="a.0"), '{"a":[{"b":1}],"c":%s}', {"b": 1}),
    ],
)
def test_an_invalid_number_that_is_not_read_does_not_spoil_the_answer(
    wire: Wire, body: str, answer: object, number: str
) -> None:
    assert wire.unpack((body % number).encode(), 1) == [answer]


@pytest.mark.parametrize("number", NO_NUMBERS)
@pytest.mark.parametrize(
    ("wire", "body"),
    [
        (HuggingFaceWire(), '{"a":%s}'),
        (TeiWire("embed"), "[[1.0,%s]]"),
        (OpenAIEmbeddingsWire("m"), '{"data":[{"embedding":[1.0,%s]}]}'),
        (VllmScoreWire("m"), '{"data":[{"score":%s}]}'),
        (VllmRerankWire("m"), '{"results":[{"index":0,"relevance_score":1.0,"document":{"x":%s}}]}'),
        (RawJsonWire(), '{"a":%s}'),
        (RawJsonWire(answer="a"), '{"a":{"b":%s}}'),
        (RawJsonWire(answer="a"), '{"a":%s}'),
    ],
)
def test_an_invalid_number_is_never_stored(wire: Wire, body: str, number: str) -> None:
    try:
        (failure,) = wire.unpack((body % number).encode(), 1)
    except RequestFailed as raised:
        failure = raised
    assert isinstance(failure, RequestFailed)


def test_an_unpaired_surrogate_changes_one_character_and_keeps_the_answer() -> None:
    body = rb'{"choices":[{"message":{"content":"Nice day \ud83d, \ud83d\ude00"}}]}'
    assert OpenAIChatWire("m").unpack(body, 1) == ["Nice day \ufffd, \U0001f600"]


async def test_all_files_of_a_list_are_encoded(tmp_path: Path) -> None:
    encoded = base64.b64encode(PNG).decode()
    packed = await HuggingFaceWire().pack([orjson.dumps([file(tmp_path / "a.png"), {"k": 1}])])
    assert orjson.loads(packed.content) == {"inputs": [encoded, {"k": 1}]}


def test_a_null_score_is_not_a_number_and_a_measured_error_is_not_a_failure() -> None:
    with pytest.raises(RequestFailed, match="a score is null"):
        HuggingFaceWire().unpack(b'[{"label":"A","score":null}]', 1)
    assert HuggingFaceWire().unpack(b'{"error":0.25,"unit":null}', 1) == [{"error": 0.25, "unit": None}]


def test_all_tokens_of_a_batch_are_distributed() -> None:
    data = [{"index": place, "embedding": [1.0]} for place in range(3)]
    answers = OpenAIEmbeddingsWire("m").unpack(orjson.dumps({"data": data, "usage": {"prompt_tokens": 8}}), 3)
    assert answers == [Answer([1.0], 3, None), Answer([1.0], 3, None), Answer([1.0], 2, None)]
    unknown: list[object] = [{"prompt_tokens": -1}, {"prompt_tokens": True}, {"prompt_tokens": "8"}, None, []]
    for usage in unknown:
        assert OpenAIEmbeddingsWire("m").unpack(orjson.dumps({"data": data, "usage": usage}), 3) == [[1.0]] * 3


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, FailureKind.REJECTED),
        ({"status": "failed", "error": {"code": "server_error", "message": "no"}}, FailureKind.GARBLED),
        ({"status": "queued", "output": []}, FailureKind.GARBLED),
        ({"output": []}, FailureKind.BAD_ANSWER),
        ({"status": "completed", "output": [{"type": "function_call"}]}, FailureKind.BAD_ANSWER),
        (
            {
                "status": "completed",
                "output": [{"type": "message", "content": [{"type": "refusal", "refusal": "I will not"}]}],
            },
            FailureKind.REJECTED,
        ),
    ],
)
def test_a_response_without_text_is_not_an_answer(body: object, kind: FailureKind) -> None:
    with pytest.raises(RequestFailed) as raised:
        OpenAIResponsesWire("m").unpack(orjson.dumps(body), 1)
    assert raised.value.kind is kind


# -- wrong requests and settings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "request_"),
    [
        (OpenAIResponsesWire("m"), {"messages": []}),
        (TgiWire(), {"inputs": ["a"]}),
        (TgiWire(), ["a"]),
        (TgiWire(), {"inputs": "a", "stream": True}),
        (HuggingFaceWire(), {"inputs": "a", "stream": True}),
        (OpenAIChatWire("m"), {"messages": [], "n": 2}),
        (OpenAIChatWire("m"), {"messages": [], "best_of": 2}),
        (OpenAIChatWire("m"), {"messages": [], "candidate_count": 2}),
        (TgiWire(), {"inputs": "a", "parameters": {"best_of": 2}}),
        (OpenAIChatWire("m"), {"messages": [], "stream": True}),
        (OpenAICompletionsWire("m"), {"prompt": "a", "n": 2}),
        (OpenAICompletionsWire("m"), {"prompt": ["a", "b"]}),
        (OpenAICompletionsWire("m"), 5),
        (OpenAICompletionsWire("m"), {"prompt": True}),
        (OpenAIEmbeddingsWire("m"), 5.5),
        (OpenAIEmbeddingsWire("m"), None),
        (OpenAIChatWire("m"), []),
        (OpenAIResponsesWire("m"), {"input": "a", "stream": True}),
        (OpenAIResponsesWire("m"), {"input": "a", "background": True}),
        (TeiWire("rerank"), "a"),
        (TeiWire("similarity"), {"inputs": "a"}),
        (VllmScoreWire("m"), "a"),
        (VllmScoreWire("m"), ["a", ["b", "c"]]),
        (VllmRerankWire("m"), {"query": "a"}),
        (RawJsonWire(body={"q": "{text}"}), {"word": "a"}),
        (RawJsonWire(body={"q": "{text.real}"}), {"text": "a"}),
    ],
)
async def test_a_request_that_the_wire_cannot_carry_is_rejected(wire: Wire, request_: object) -> None:
    with pytest.raises(RequestFailed) as raised:
        await wire.pack([orjson.dumps(request_)])
    assert raised.value.kind is FailureKind.REJECTED


async def test_options_that_leave_one_complete_answer_are_sent() -> None:
    body = await OpenAIChatWire("m").pack([b'{"messages": [{}], "n": 1, "stream": false}'])
    assert orjson.loads(body.content) == {"model": "m", "messages": [{}], "n": 1, "stream": False}
    tokens = await OpenAICompletionsWire("m").pack([b'{"prompt": [1, 2]}'])
    assert orjson.loads(tokens.content) == {"model": "m", "prompt": [1, 2]}


async def test_a_number_is_no_input_because_a_list_of_numbers_is_one_text_in_tokens() -> None:
    for wire in (OpenAICompletionsWire("m"), OpenAIEmbeddingsWire("m")):
        with pytest.raises(RequestFailed, match=r"not 2$"):
            await wire.pack([b"[1, 2]", b"2"])
        tokens = await wire.pack([b"[1, 2]", b'"b"'])
        assert b'[[1,2],"b"]' in tokens.content


async def test_inputs_with_different_parameters_do_not_share_a_request() -> None:
    requests = [orjson.dumps({"input": "a", "dimensions": size}) for size in (1, 1, 2)]
    packed = await OpenAIEmbeddingsWire("m", {"dimensions": 3}).pack(requests[:2])
    assert orjson.loads(packed.content) == {"model": "m", "dimensions": 1, "input": ["a", "a"]}
    for mixed in (requests, [b'"a"', requests[0]], [requests[0], b'"a"']):
        with pytest.raises(RequestFailed, match="different parameters") as raised:
            await OpenAIEmbeddingsWire("m").pack(mixed)
        assert raised.value.kind is FailureKind.REJECTED


@pytest.mark.parametrize("parameters", [{"stream": True}, {"n": 2}, {"best_of": 4}])
@pytest.mark.parametrize("kind", [OpenAIChatWire, OpenAICompletionsWire, OpenAIResponsesWire])
def test_parameters_that_change_the_shape_of_the_answer_are_refused(
    kind: Callable[..., object], parameters: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match="leave `"):
        kind("m", parameters)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TeiWire("bed"), "route must be one of embed, "),  # type: ignore[arg-type]
        (lambda: RawJsonWire(method="GET"), "method must be"),  # type: ignore[arg-type]
        (lambda: OpenAIResponsesWire("m", {"background": True}), "leave `background` out"),
        (lambda: TgiWire({"best_of": 2}), "leave `best_of` out"),
        (lambda: HttpEndpoint("http://h/", wire=TgiWire(), lists=False), "set the parameters in the wire"),
        (lambda: HttpEndpoint("http://h/", wire=TgiWire(), parameters={"k": 1}), "set the parameters in the wire"),
        (lambda: ServerlessEndpoint("m", wire=TgiWire(), parameters={"k": 1}), "leave parameters= out"),
        (lambda: ServerlessEndpoint("m", wire=OpenAIChatWire("n")), "the wire asks for n, the endpoint is m"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


@every_wire
def test_a_batch_needs_a_wire_with_lists(case: Case) -> None:
    assert for_batches(case.wire, None) is case.wire
    if case.wire.takes_lists:
        assert for_batches(case.wire, 8).takes_lists
    else:
        with pytest.raises(UsageError, match=r"holds one item, so policy\.batch_size cannot be 8"):
            for_batches(case.wire, 8)


# -- identity, names, endpoints ----------------------------------------------------------------------------------------


def test_identities_are_json_and_no_two_wires_share_one() -> None:
    identities = [orjson.dumps(case.wire.identity, option=orjson.OPT_SORT_KEYS) for case in CASES.values()]
    assert len(set(identities)) == len(CASES)
    elsewhere = OpenAITranscriptionsWire("m").identity["wire"]  # takes files: see test_transcriptions.py
    assert {case.wire.identity["wire"] for case in CASES.values()} == set(WIRES.names) - {"openai-chat", elsewhere}


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items() if case.toml])
def test_a_wire_is_made_from_plain_data(case: Case) -> None:
    endpoint = endpoint_from({"kind": "http", "url": "http://h/", "wire": case.toml})
    assert endpoint == HttpEndpoint("http://h/", wire=case.wire)


def test_every_wire_in_the_documentation_exists() -> None:
    text = DOCUMENTATION.read_text()
    (block, *_) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    made: list[Wire] = [eval(line) for line in block.splitlines() if line.startswith(tuple(wires.__all__))]  # noqa: S307
    assert {type(wire) for wire in made} == {WIRES.type_of(name, "wire") for name in WIRES.names}
    assert set(re.findall(r"Wire` \(`([a-z-]+)`\)", text)) == set(WIRES.names) - {"openai"}


@pytest.mark.parametrize(
    "wire", [kind("m", response_format={"enum": ["YES"]}, reasks=0) for kind in (OpenAIChatWire, OpenAIResponsesWire)]
)
async def test_an_answer_in_a_requested_format_is_valid_json_for_it(wire: Wire) -> None:
    async with served(OPENAI) as server, opened(HttpEndpoint(server.url, wire=wire)) as data:
        assert await data.ask([orjson.dumps('"yes"')]) == [Answer("YES", TEXT_IN, TEXT_OUT)]
        with pytest.raises(RequestFailed, match="'NO' is not one of"):
            await data.ask([orjson.dumps('"no"')])


def test_chat_has_two_names() -> None:
    wire = {"model": "m", "response_format": {"type": "object"}}
    for kind in ("openai", "openai-chat"):
        made = endpoint_from({"kind": "http", "url": "http://h/", "wire": wire | {"kind": kind}})
        assert made == HttpEndpoint("http://h/", wire=OpenAIChatWire("m", response_format={"type": "object"}))


async def test_every_kind_of_endpoint_takes_any_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    wire = OpenAIEmbeddingsWire("m")
    async with served(OPENAI, token="hf_secret") as server:
        url = server.url
        commands = {"resume": ["true"], "state": ["echo", "running"], "pause": ["true"]}
        endpoints: list[Endpoint] = [
            HttpEndpoint(url, wire=wire, token_env="HF_TOKEN"),
            CommandEndpoint("c", f"{url}/v1", **commands, wire=wire, token_env="HF_TOKEN"),  # type: ignore[arg-type]
            ServerlessEndpoint("m", route="chat", wire=wire, base_url=url),
        ]
        for endpoint in endpoints:
            async with opened(endpoint, Policy(batch_size=2)) as data:
                answers = await data.ask([b'"ab"', b'"c"'])
            assert [value_of(answer) for answer in answers] == [[0.5, -1.5], [0.25, -1.5]]
            assert endpoint.identity(Policy(batch_size=2)).items() >= wire.identity.items()
    managed = HuggingFaceEndpoint("acme/m", wire=wire)
    assert managed.identity(Policy(batch_size=2)).items() >= wire.identity.items()
    assert ServerlessEndpoint("a/m", wire=HuggingFaceWire({"k": 1})) != ServerlessEndpoint("a/m", parameters={"k": 1})
    assert ServerlessEndpoint("a/m", wire=HuggingFaceWire({"k": 1})).identity(Policy()) == ServerlessEndpoint(
        "a/m", parameters={"k": 1}
    ).identity(Policy())
