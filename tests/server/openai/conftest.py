"""A server with a model behind it, the `openai` package as its client, and files for batches."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from tests.commands import DEADLINE, POLL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from openai import OpenAI
    from openai.types import Batch

    from tests.server.conftest import HttpServer
    from tests.servers import InferenceServer

MODEL = "acme/m"
GUIDE: dict[str, Any] = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
ENDS = {"completed", "failed", "expired", "cancelled"}
NAMED = "night.jsonl"


@pytest.fixture
def config(server: InferenceServer) -> str:
    """Return the settings with one endpoint, which serves one model."""
    return f'[endpoints.here]\nkind = "http"\nurl = "{server.url}"\nmodels = ["{MODEL}"]\n'


@pytest.fixture
def batch_server(start_server: Callable[..., AbstractContextManager[HttpServer]], config: str) -> Iterator[HttpServer]:
    with start_server(config) as running:
        yield running


@pytest.fixture
def client(batch_server: HttpServer) -> Iterator[OpenAI]:
    with client_of(batch_server) as client:
        yield client


def client_of(server: HttpServer, token: str | None = None) -> OpenAI:
    """Return the package's client as its users make it, with its default retries."""
    client: OpenAI = pytest.importorskip("openai").OpenAI(base_url=f"{server.url}/v1", api_key=token or server.token)
    return client


def line(custom_id: str, text: str, **changes: object) -> dict[str, object]:
    """Return a line of an input file."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body, **changes}


def jsonl(lines: Iterable[object]) -> bytes:
    return b"".join(orjson.dumps(line) + b"\n" for line in lines)


def parsed(content: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in content.splitlines()]


def poll(client: OpenAI, batch: Batch, until: Callable[[Batch], bool] = lambda found: found.status in ENDS) -> Batch:
    """Poll as the guide does, only more often."""
    deadline = time.monotonic() + DEADLINE
    while not until(batch := client.batches.retrieve(batch.id)):
        assert time.monotonic() < deadline, batch
        time.sleep(POLL)
    return batch


def created(client: OpenAI, *lines: object, **parameters: Any) -> Batch:
    file = client.files.create(file=(NAMED, jsonl(lines)), purpose="batch")
    return client.batches.create(input_file_id=file.id, **{**GUIDE, **parameters})
