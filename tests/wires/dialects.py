"""One small strict server per dialect: it accepts what the source of the real server accepts, and nothing else.

Unknown fields, other content types and wrong types are refused, although real servers often ignore them. If a
dialect numbers its answers, they come in reverse order, which is allowed.
"""

from __future__ import annotations

import base64
import struct
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson
from aiohttp import web

Json: TypeAlias = Any  # what was decoded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from collections.abc import Set as AbstractSet

    Handler = Callable[[Json], object]

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
TEXT_IN, TEXT_OUT = 3, 5  # tokens that a text is said to take


class Refused(Exception):
    """A request that the real server would refuse."""


def upper(text: object) -> str:
    """Return the right answer to a text."""
    check(isinstance(text, str), f"not a text: {text!r}")
    return str(text).upper()


def numbers(text: object) -> list[float]:
    """Return the right vector of a text: floats that fit in 32 bits."""
    return [len(upper(text)) / 4, -1.5]


def check(fact: bool, otherwise: str) -> None:
    if not fact:
        raise Refused(otherwise)


def fields(body: Json, required: AbstractSet[str], optional: AbstractSet[str] = frozenset()) -> None:
    check(isinstance(body, dict), "the body must be an object")
    check(required <= body.keys(), f"missing: {required - body.keys()}")
    check(body.keys() <= required | optional, f"unknown: {body.keys() - required - optional}")


# -- openai ------------------------------------------------------------------------------------------------------------


def usage(texts: int, out: int = 0) -> dict[str, int]:
    return {
        "prompt_tokens": TEXT_IN * texts,
        "completion_tokens": out * texts,
        "total_tokens": (TEXT_IN + out) * texts,
    }


def chat(body: Json) -> object:
    fields(body, {"model", "messages"}, {"temperature", "max_tokens", "seed", "response_format"})
    for message in body["messages"]:
        check(message["role"] in {"system", "user", "assistant"}, "unknown role")
        check(isinstance(message["content"], str | list), "content must be a text or parts")
    content = body["messages"][-1]["content"]
    said = upper(content) if isinstance(content, str) else " ".join(part_of(part) for part in content)
    choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
    about = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"]}
    return about | {"choices": [choice], "usage": usage(1, TEXT_OUT)}


def part_of(part: Json) -> str:
    match part:
        case {"type": "text", "text": str(text)}:
            return upper(text)
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            head, _, data = url.partition(",")
            return f"{head} of {len(base64.b64decode(data, validate=True))} bytes"
    raise Refused(f"unknown part {part!r}")


def completions(body: Json) -> object:
    fields(body, {"model", "prompt"}, {"temperature", "max_tokens"})
    prompts = [body["prompt"]] if isinstance(body["prompt"], str) else body["prompt"]
    choices = [
        {"index": place, "text": upper(prompt), "finish_reason": "stop", "logprobs": None}
        for place, prompt in enumerate(prompts)
    ]
    about = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"]}
    return about | {"choices": choices[::-1], "usage": usage(len(prompts), TEXT_OUT)}


def embeddings(body: Json) -> object:
    fields(body, {"model", "input"}, {"encoding_format", "dimensions"})
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    vectors: list[object] = [numbers(text) for text in texts]
    if body.get("encoding_format") == "base64":
        vectors = [base64.b64encode(struct.pack("<2f", *numbers(text))).decode() for text in texts]
    data = [{"object": "embedding", "index": place, "embedding": vector} for place, vector in enumerate(vectors)]
    used = usage(len(texts))
    del used["completion_tokens"]
    return {"object": "list", "data": data[::-1], "model": body["model"], "usage": used}


def responses(body: Json) -> object:
    fields(body, {"model", "input", "stream"}, {"instructions", "max_output_tokens", "text"})
    check(body["stream"] is False, "`transformers serve` streams unless told not to")
    if "text" in body:
        fields(body["text"], set(), {"format", "verbosity"})
        fields(body["text"].get("format", {"type": "text"}), {"type"}, {"name", "schema", "strict", "description"})
    text = body["input"] if isinstance(body["input"], str) else body["input"][-1]["content"]
    about = {"id": "resp_1", "object": "response", "created_at": 1, "model": body["model"], "error": None}
    part = {"type": "output_text", "text": upper(text), "annotations": []}
    message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}
    used = {"input_tokens": TEXT_IN, "output_tokens": TEXT_OUT, "total_tokens": TEXT_IN + TEXT_OUT}
    output = [{"type": "reasoning", "id": "r", "summary": []}, message]
    settings = {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "incomplete_details": None}
    return about | settings | {"status": "completed", "output": output, "usage": used}


OPENAI = {
    "/v1/chat/completions": chat,
    "/v1/completions": completions,
    "/v1/embeddings": embeddings,
    "/v1/responses": responses,
}

# -- vllm --------------------------------------------------------------------------------------------------------------


def score(body: Json) -> object:
    fields(body, {"model", "text_1", "text_2"}, {"use_activation"})
    left, right = body["text_1"], body["text_2"]
    check(isinstance(left, list) and isinstance(right, list) and len(left) == len(right), "not pairs")
    scores = [len(upper(one)) - len(upper(two)) + 0.5 for one, two in zip(left, right, strict=True)]
    data = [{"index": place, "object": "score", "score": one} for place, one in enumerate(scores)]
    return {
        "id": "s",
        "object": "list",
        "created": 1,
        "model": body["model"],
        "data": data[::-1],
        "usage": usage(len(left)),
    }


def rerank(body: Json) -> object:
    fields(body, {"model", "query", "documents"}, {"top_n"})
    results = [
        {"index": place, "document": {"text": text}, "relevance_score": len(upper(text)) / 10}
        for place, text in enumerate(body["documents"])
    ]
    return {"id": "r", "model": body["model"], "results": results[::-1], "usage": usage(1)}


VLLM = {"/v1/score": score, "/score": score, "/v1/rerank": rerank, "/rerank": rerank}

# -- text-embeddings-inference -----------------------------------------------------------------------------------------

_BESIDE = {"truncate", "normalize", "raw_scores"}


def tei(answer: Callable[[str], object]) -> Handler:
    def handle(body: Json) -> object:
        fields(body, {"inputs"}, _BESIDE)
        inputs = [body["inputs"]] if isinstance(body["inputs"], str) else body["inputs"]
        check(0 < len(inputs) <= 32, f"batch size {len(inputs)} > maximum allowed batch size 32")
        return [answer(upper(text)) for text in inputs]

    return handle


def predict(body: Json) -> object:
    """Accept what its deserializer reads: a text, a pair, or a list of lists of one or two texts."""
    fields(body, {"inputs"}, _BESIDE)
    inputs = body["inputs"]
    check(isinstance(inputs, list) and all(isinstance(one, list) and len(one) in {1, 2} for one in inputs), "no batch")
    return [[{"score": len(one) / 4, "label": "+".join(upper(text) for text in one)}] for one in inputs]


def tei_rerank(body: Json) -> object:
    fields(body, {"query", "texts"}, _BESIDE | {"return_text"})
    return [{"index": place, "score": len(upper(text)) / 10} for place, text in enumerate(body["texts"])][::-1]


def similarity(body: Json) -> object:
    fields(body, {"inputs"}, {"parameters"})
    fields(body["inputs"], {"source_sentence", "sentences"})
    return [len(upper(text)) / 10 for text in body["inputs"]["sentences"]]


TEI = {
    "/embed": tei(numbers),
    "/embed_all": tei(lambda text: [numbers(text), numbers(text)]),
    "/embed_sparse": tei(lambda text: [{"index": len(text), "value": 0.5}]),
    "/predict": predict,
    "/rerank": tei_rerank,
    "/similarity": similarity,
}

# -- text-generation-inference, the inference toolkit, and what knows none of these ------------------------------------


def generate(body: Json) -> object:
    fields(body, {"inputs"}, {"parameters"})
    parameters = body.get("parameters", {})
    fields(parameters, set(), {"details", "max_new_tokens", "decoder_input_details"})
    answer: dict[str, object] = {"generated_text": upper(body["inputs"])}
    if parameters.get("details"):
        prefill = [{"id": 1, "text": "a"}] * TEXT_IN if parameters.get("decoder_input_details") else []
        answer["details"] = {
            "finish_reason": "eos_token",
            "generated_tokens": TEXT_OUT,
            "prefill": prefill,
            "tokens": [],
        }
    return answer


TGI = {"/generate": generate}


def toolkit(body: Json) -> object:
    """The default handler: lists give lists; an object of inputs holds the arguments of the pipeline."""
    if isinstance(body, bytes):
        return [{"label": f"{len(body)} bytes", "score": 0.5}]
    check("inputs" in body, "Body needs to provide a inputs key")
    inputs = body["inputs"]
    if isinstance(inputs, list):
        return [upper(text) for text in inputs]
    if isinstance(inputs, dict):
        return {"answer": upper(inputs["question"]), "score": 0.5}
    return {"said": upper(inputs), "parameters": body.get("parameters")}


TOOLKIT = {"/": toolkit, "/predict": toolkit}
_TOOLKIT_TYPES = {"image/png", "image/jpeg", "image/tiff", "audio/flac", "audio/mpeg", "audio/wav", "audio/m4a"}


def custom(body: Json) -> object:
    fields(body, {"q", "options"})
    return {"data": [{"text": upper(body["q"])}], "seen": body}


CUSTOM = {"/api/ask": custom}


def label(body: Json) -> object:
    """A function of a Gradio app with a text and a number as inputs."""
    fields(body, {"data"})
    text, most = body["data"]
    check(isinstance(most, int), f"not a number: {most!r}")
    return [{"label": upper(text)}]


GRADIO = {"/gradio_api/call/label": label}


def told(outputs: object) -> bytes:
    """Return the stream of events with which Gradio answers."""
    return b"event: generating\ndata: [null]\n\nevent: complete\ndata: " + orjson.dumps(outputs) + b"\n\n"


@dataclass
class Dialect:
    """A running server. `instead` holds bodies that are sent unchanged, each once, before any correct answer."""

    url: str = ""
    instead: list[bytes] = field(default_factory=list)
    asked: list[tuple[str, Json]] = field(default_factory=list)


@asynccontextmanager
async def served(
    routes: Mapping[str, Handler], *, prefix: str = "", method: str = "POST", token: str | None = None
) -> AsyncIterator[Dialect]:
    """Run the server for the block. Query parameters are ignored, as by all of the real servers."""
    dialect = Dialect()
    queue: list[object] = []

    async def events(request: web.Request) -> web.Response:
        content = dialect.instead.pop(0) if dialect.instead else told(queue[int(request.match_info["event"])])
        return web.Response(body=content, content_type="text/event-stream")

    async def answer(request: web.Request) -> web.Response:
        handler = routes[request.path.removeprefix(prefix)]
        content, kind = await request.read(), request.headers.get("Content-Type")
        if token is not None and request.headers.get("Authorization") != f"Bearer {token}":
            return _json({"error": "Unauthorized"}, 401)
        try:
            check(kind == "application/json" or (handler is toolkit and kind in _TOOLKIT_TYPES), f"415: {kind}")
            body = orjson.loads(content) if kind == "application/json" else content
            dialect.asked.append((request.path_qs, body))
            said = handler(body)
        except (Refused, KeyError, TypeError, ValueError) as error:
            return _json({"error": f"{type(error).__name__}: {error}"}, 400)
        if handler in GRADIO.values():
            queue.append(said)
            return _json({"event_id": str(len(queue) - 1)})
        return (
            web.Response(body=dialect.instead.pop(0), content_type="application/json")
            if dialect.instead
            else _json(said)
        )

    app = web.Application()
    for path in routes:
        app.router.add_route(method, prefix + path, answer)
    for path in GRADIO.keys() & routes:
        app.router.add_get(f"{prefix}{path}/{{event}}", events)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    dialect.url = f"http://127.0.0.1:{runner.addresses[0][1]}{prefix}"
    try:
        yield dialect
    finally:
        await runner.cleanup()


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")
