"""The conformance suite of wires asks over HTTP with either client."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.function.__name__ == "test_over_http_the_answers_are_the_same":
        metafunc.fixturenames.append("each_http_client")
        metafunc.parametrize("each_http_client", ["ry", "aiohttp"], indirect=True)
