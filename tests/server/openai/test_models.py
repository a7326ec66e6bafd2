"""`/v1/models`, and what the server says about routes that it does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.config import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from tests.server.conftest import Inside

HERE = {"kind": "http", "url": "http://127.0.0.1:1/"}
SETTINGS = Settings(endpoints={"a": {**HERE, "models": ["acme/m", "n"]}, "b": {**HERE, "models": ["n"]}, "c": HERE})


async def test_the_models_of_the_settings_are_listed_with_their_endpoints(
    serve_inside: Callable[..., AbstractAsyncContextManager[Inside]],
) -> None:
    async with serve_inside(SETTINGS) as http:
        async with http.client.get("/v1/models") as response:
            models = await response.json()
        assert [(model["id"], model["owned_by"]) for model in models["data"]] == [("acme/m", "a"), ("n", "a, b")]
        async with http.client.get("/v1/models/acme/m") as response:
            assert await response.json() == models["data"][0]
        async with http.client.get("/v1/models/acme/other") as response:
            assert response.status == 404
            assert (await response.json())["error"]["code"] == "model_not_found"


async def test_a_route_that_is_not_there_says_what_is(http: Inside) -> None:
    async with http.client.post("/v1/chat/completions", json={"model": "m", "messages": []}) as response:
        assert response.status == 404
        error = (await response.json())["error"]
    assert error["type"] == "invalid_request_error"
    assert "POST /v1/chat/completions" in error["message"]
    assert "/v1/batches" in error["message"]
    assert "\n" not in error["message"]


async def test_a_method_that_a_route_does_not_have_is_answered_by_those_that_it_has(http: Inside) -> None:
    for method, path, allowed in (
        ("PUT", "/v1/files", "GET, HEAD, POST"),
        ("DELETE", "/v1/batches/batch_1", "GET, HEAD"),
        ("GET", "/v1/batches/batch_1/cancel", "POST"),
    ):
        async with http.client.request(method, path) as response:
            assert (response.status, response.headers["Allow"]) == (405, allowed)
            error = (await response.json())["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "method_not_supported")
        assert error["message"].startswith(f"Not allowed to {method} on {path}:")
